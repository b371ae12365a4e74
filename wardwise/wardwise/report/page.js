"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const all = (selector) => [...document.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const robots = all(".lane[data-robot]").map((lane) => lane.dataset.robot);
  const state = { robot: "", trip: "", row: null };

  // ---- map -------------------------------------------------------------------------------
  const layer = (kind, floor) => document.querySelector(`.${kind}[data-floor="${floor}"]`);

  function draw(parent, name, attributes, text) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    parent.append(node);
    return node;
  }

  function chosenTrips() {
    if (!state.robot) return robots.flatMap((name) => data.paths[name]);
    const trips = data.paths[state.robot];
    return state.trip === "" ? trips : [trips[Number(state.trip)]];
  }

  function passes(trips) {
    const count = new Map();
    for (const trip of trips)
      for (const leg of trip.legs)
        for (let k = 1; k < leg.length; k += 1) {
          const [a, b] = [Math.min(leg[k - 1], leg[k]), Math.max(leg[k - 1], leg[k])];
          if (a !== b) count.set(`${a} ${b}`, (count.get(`${a} ${b}`) || 0) + 1);
        }
    return count;
  }

  function drawLines(trips) {
    const count = passes(trips);
    const most = Math.max(1, ...count.values());
    for (const [edge, times] of count) {
      const [from, to] = edge.split(" ").map((index) => data.points[Number(index)]);
      if (from[2] !== to[2]) continue; // an elevator ride
      draw(layer("routes", from[2]), "path", {
        d: `M${from[0]} ${from[1]}L${to[0]} ${to[1]}`,
        class: state.robot ? "one" : "all",
        "stroke-width": state.robot ? 4 : data.hasSite ? 1.5 + 7 * Math.sqrt(times / most) : 1.5,
      });
    }
  }

  /** Stops of one trip carry their order; of several trips, the number of visits. */
  function drawStops(trips) {
    const visits = new Map();
    trips.forEach((trip) => trip.legs.slice(0, trip.isBrokenOff ? undefined : -1).forEach((leg, k) => {
      const point = leg[leg.length - 1];
      visits.set(point, [...(visits.get(point) || []), k + 1]);
    }));
    all(".mark.ward, .mark.theatre, .mark.place").forEach((mark) =>
      mark.classList.toggle("faded", state.robot !== "" && !visits.has(Number(mark.dataset.point))));
    if (!state.robot) return;
    for (const [point, order] of visits) {
      const [x, y, floor] = data.points[point];
      const shown = trips.length === 1 ? order.join(", ") : `×${order.length}`;
      const group = draw(layer("order", floor), "g", { transform: `translate(${x} ${y})` });
      const box = draw(group, "rect", { rx: 4 });
      const size = draw(group, "text", { y: 5 }, shown).getBBox();
      for (const [key, value] of Object.entries({
        x: size.x - 5, y: size.y - 1, width: size.width + 10, height: size.height + 2,
      })) box.setAttribute(key, value);
    }
  }

  function showMap() {
    all(".routes, .order").forEach((group) => group.replaceChildren());
    const trips = chosenTrips();
    drawLines(trips);
    drawStops(trips);
  }

  // ---- choice of robot and trip ----------------------------------------------------------
  function choose(robot, trip = "") {
    state.robot = robot;
    state.trip = trip;
    byId("robot").value = robot;
    const select = byId("trip");
    const trips = robot ? data.paths[robot] : [];
    select.replaceChildren(new Option("All", ""), ...trips.map((item, k) =>
      new Option(`${k + 1}${item.isBrokenOff ? ", broken off" : ""}`, `${k}`)));
    select.value = trip;
    select.disabled = !robot;
    const stops = chosenTrips().reduce((sum, item) => sum + item.stops.length, 0);
    const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
    byId("chosen").textContent = `${count(chosenTrips().length, "trip")}, ${count(stops, "stop")} shown`;
    byId("map-note").hidden = Boolean(robot) || !data.hasSite;
    all(".lane[data-robot]").forEach((lane) => {
      const isThis = lane.dataset.robot === robot;
      lane.classList.toggle("dim", Boolean(robot) && !isThis);
      lane.querySelector(".name").setAttribute("aria-pressed", String(isThis));
    });
    showMap();
    filterRows();
  }

  function step(by) {
    const ring = ["", ...robots];
    choose(ring[(ring.indexOf(state.robot) + by + ring.length) % ring.length]);
  }

  byId("robot").addEventListener("change", (event) => choose(event.target.value));
  byId("trip").addEventListener("change", (event) => choose(state.robot, event.target.value));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));

  // ---- schedule --------------------------------------------------------------------------
  function showRow(row) {
    state.row = row;
    const entries = data.rows[row].facts.map(([name, value]) => {
      const pair = document.createElement("div");
      pair.append(document.createElement("dt"), document.createElement("dd"));
      pair.firstChild.textContent = name;
      pair.lastChild.textContent = value;
      return pair;
    });
    byId("facts").replaceChildren(...entries);
    all(".band").forEach((band) => { band.hidden = true; });
    all(".stop, tbody tr").forEach((item) =>
      item.classList.toggle("chosen", Number(item.dataset.row) === row));
    const stop = document.querySelector(`.stop[data-row="${row}"]`);
    if (!stop) return;
    const band = stop.parentElement.querySelector(".band");
    const [left, width] = data.rows[row].window;
    band.style.left = `${left}%`;
    band.style.width = `${width}%`;
    band.hidden = false;
  }

  function moveFocus(event) {
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

  const chart = document.querySelector(".chart");
  for (const kind of ["pointerover", "focusin", "click"])
    chart.addEventListener(kind, (event) => {
      const stop = event.target.closest(".stop");
      if (stop) showRow(Number(stop.dataset.row));
    });
  chart.addEventListener("keydown", moveFocus);
  all(".lane button.name").forEach((button) => button.addEventListener("click", () => {
    const { robot } = button.parentElement.dataset;
    choose(robot === state.robot ? "" : robot);
  }));
  all("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    document.querySelector(".lanes").style.setProperty("--zoom", button.dataset.zoom);
    all("[data-zoom]").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
  }));

  // ---- table -----------------------------------------------------------------------------
  const body = document.querySelector("tbody");

  function filterRows() {
    const text = byId("search").value.trim().toLowerCase();
    let shown = 0;
    for (const row of body.rows) {
      const { robot, priority, status } = row.dataset;
      const fits = (!state.robot || robot === state.robot)
        && (!byId("priority").value || priority === byId("priority").value)
        && (!byId("status").value || status === byId("status").value)
        && (!text || `${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase().includes(text));
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    byId("count").textContent = `${shown} of ${body.rows.length}`;
  }

  function sortRows(heading, column) {
    const rising = heading.getAttribute("aria-sort") !== "ascending";
    all("thead [aria-sort]").forEach((other) => other.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = (row) => data.rows[Number(row.dataset.row)].sort[column];
    const order = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
    const rows = [...body.rows].sort((a, b) => (rising ? 1 : -1) * order(key(a), key(b)));
    body.append(...rows);
  }

  all("thead [data-column]").forEach((button) => button.addEventListener("click", () =>
    sortRows(button.parentElement, Number(button.dataset.column))));
  ["search", "priority", "status"].forEach((id) => byId(id).addEventListener("input", filterRows));
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) showRow(Number(row.dataset.row));
  });

  choose("");
})();
