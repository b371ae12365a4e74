// ---- what every page uses ----------------------------------------------------------------
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const all = (selector) => [...document.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);
const layer = (kind, floor) => document.querySelector(`.${kind}[data-floor="${floor}"]`);

/** Add a drawing's element to `parent`. */
function draw(parent, name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  parent.append(node);
  return node;
}

/** Put a coloured box behind the text of a group. */
function drawLabel(parent, text, attributes) {
  const group = draw(parent, "g", attributes);
  const box = draw(group, "rect", { rx: 4 });
  const size = draw(group, "text", { y: 5 }, text).getBBox();
  for (const [key, value] of Object.entries({
    x: size.x - 5, y: size.y - 1, width: size.width + 10, height: size.height + 2,
  })) box.setAttribute(key, value);
  return group;
}

/** Names and values as a definition list; what has not changed is not read out again. */
function showFacts(pairs) {
  const text = JSON.stringify(pairs);
  if (byId("facts").dataset.shown === text) return;
  byId("facts").dataset.shown = text;
  byId("facts").replaceChildren(...pairs.map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(document.createElement("dt"), document.createElement("dd"));
    pair.firstChild.textContent = name;
    pair.lastChild.textContent = value;
    return pair;
  }));
}

/** Arrow keys move between the stops of a robot. */
function walkStops(event) {
  const here = event.target.closest(".stop");
  if (!here) return;
  const siblings = [...here.parentElement.querySelectorAll(".stop")];
  const place = siblings.indexOf(here);
  const target = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: siblings.length - 1 }[event.key];
  if (target === undefined || !siblings[target]) return;
  event.preventDefault();
  here.tabIndex = -1;
  siblings[target].tabIndex = 0;
  siblings[target].focus();
}

/** Buttons that widen the schedule. */
function zoomButtons(onZoom = () => {}) {
  all("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    document.querySelector(".lanes").style.setProperty("--zoom", button.dataset.zoom);
    all("[data-zoom]").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    onZoom();
  }));
}
