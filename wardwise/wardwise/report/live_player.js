// ---- time, and what is chosen ------------------------------------------------------------
const now = { t: 0, row: null, robot: "", isPlaying: false, last: 0, state: null, shown: "" };
const slider = byId("time");
// An arrow key moves by a minute; where times have no unit, by a four-hundredth of the day.
const STEP_S = data.isPlain ? data.endS / 400 : 60;

/** Show a moment; `isFresh` lets what was just placed light up. */
function show(t, isFresh = false) {
  const previous = now.state;
  now.t = Math.min(Math.max(t, 0), data.endS);
  now.state = stateAt(now.t);
  slider.value = now.t;
  slider.style.setProperty("--done", `${percent(now.t)}%`);
  slider.setAttribute("aria-valuetext", clock(now.t));
  all("[data-clock]").forEach((node) => { node.textContent = clock(now.t); });
  for (const [name, count] of Object.entries(countsOf(now.state))) {
    const node = byId(`count-${name}`);
    if (!node) continue;
    node.textContent = count;
    node.parentElement.classList.toggle("some", count > 0);
  }
  showChart(now.state, previous, isFresh);
  keepNowInSight(now.t);
  showChoice();
}

/** What is known at this moment about the chosen request. */
function factsNow(row) {
  const request = data.requests[row];
  const facts = [["Request", request.id], ["Place", request.place], ["Transport", request.transport],
    ["Window", request.window], ...(request.prescription ? [["Prescription", request.prescription]] : []),
    ["Known", request.releaseS > 0 ? `since ${clock(request.releaseS)}` : "in advance"]];
  const stands = now.state.standing.get(row);
  if (!stands) return [...facts, ["Status", "not known yet"]];
  const visit = now.state.visits.get(row);
  if (stands[0] !== "accepted") return [...facts, ["Status", `${VERDICTS[stands[0]]} at ${clock(stands[1])}`]];
  const { start, end, leave } = visit.stop;
  const late = start > request.dueS + 0.05 ? ", late" : "";
  const status = now.t >= end ? "served" : now.t >= start ? "being served" : now.t >= leave ? "under way" : "planned";
  return [...facts, ["Robot", `${data.robots[visit.robot][0]}, trip ${visit.number + 1}`],
    ["Service", `${clock(start)} – ${clock(end)}${late}`], ["Status", status]];
}

function showChoice() {
  const shown = [now.row, now.robot, now.state.moment].join(" ");
  if (shown !== now.shown) markChosen(now.row, now.robot);
  now.shown = shown;
  showMap(now.state, now.robot, now.row);
  showFeed(now.t, now.row);
  if (now.row !== null) showFacts(factsNow(now.row));
}

function chooseRow(row) {
  now.row = row;
  showChoice();
  all("#requests tbody tr").forEach((tr) => tr.classList.toggle("chosen", Number(tr.dataset.row) === row));
}

function chooseRobot(robot) {
  now.robot = robot === now.robot ? "" : robot;
  showChoice();
  filterRows();
}

/** Go to the moment of an answer, and show its request. */
function jump(t, row) {
  play(false);
  show(t);
  if (row >= 0) chooseRow(row);
}

// ---- playing -----------------------------------------------------------------------------
function play(isPlaying) {
  now.isPlaying = isPlaying;
  byId("play").setAttribute("aria-label", isPlaying ? "Pause" : "Play");
  byId("play").querySelector("span").textContent = isPlaying ? "Pause" : "Play";
  byId("play").classList.toggle("playing", isPlaying);
  if (!isPlaying) return;
  if (now.t >= data.endS) show(0);
  now.last = performance.now();
  requestAnimationFrame(tick);
}

function tick(time) {
  if (!now.isPlaying) return;
  const passed_s = Math.max(time - now.last, 0) / 1000;
  now.last = time;
  show(now.t + (passed_s * data.endS) / Number(byId("pace").value), true);
  if (now.t >= data.endS) play(false); else requestAnimationFrame(tick);
}

function moveBy(event) {
  const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
  const target = { Home: 0, End: data.endS }[event.key] ?? (by && now.t + by * STEP_S);
  if (target === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  play(false);
  show(target, by === 1);
}

slider.addEventListener("input", () => { play(false); show(Number(slider.value)); });
slider.addEventListener("keydown", moveBy);
document.addEventListener("keydown", (event) => {
  if (event.target !== document.body) return;
  if (event.key === " ") {
    event.preventDefault();
    play(!now.isPlaying);
  } else if (event.key.startsWith("Arrow") && !["ArrowUp", "ArrowDown"].includes(event.key)) moveBy(event);
});
byId("play").addEventListener("click", () => play(!now.isPlaying));
byId("start").addEventListener("click", () => { play(false); show(0); });
for (const [id, by] of [["before", -1], ["after", 1]])
  byId(id).addEventListener("click", () => {
    const entry = neighbour(now.t, by);
    if (!entry) return;
    jump(entry.t, entry.row);
  });

// ---- choosing ----------------------------------------------------------------------------
const chart = document.querySelector(".chart");
for (const kind of ["focusin", "click"])
  chart.addEventListener(kind, (event) => {
    const stop = event.target.closest(".stop");
    if (stop && Number(stop.dataset.row) !== now.row) chooseRow(Number(stop.dataset.row));
  });
chart.addEventListener("keydown", walkStops);
chart.querySelector(".axis .track").addEventListener("click", (event) => {
  const box = event.currentTarget.getBoundingClientRect();
  play(false);
  show(((event.clientX - box.left) / box.width) * data.endS);
});
lanes.forEach(({ lane }) => lane.querySelector(".name").addEventListener("click", () =>
  chooseRobot(lane.dataset.robot)));
zoomButtons(() => keepNowInSight(now.t));
byId("show-way")?.addEventListener("click", (event) => {
  const row = Number(event.currentTarget.dataset.row);
  jump(data.requests[row].releaseS, row);
  document.querySelector(".schedule").scrollIntoView({ block: "nearest" });
});

entries.forEach((entry) => entry.node.querySelector("button").addEventListener("click", (event) => {
  const isOpen = event.currentTarget.getAttribute("aria-expanded") === "true";
  openEntry(entry, !isOpen);
  if (!isOpen) jump(entry.t, entry.row);
}));
["by-verdict", "by-class", "by-rule"].forEach((id) => byId(id).addEventListener("input", filterFeed));
all(".jump").forEach((button) => button.addEventListener("click", () => {
  jump(Number(button.dataset.t), Number(button.dataset.row));
}));

const filterRows = requestTable(() => now.robot, chooseRow);
filterRows();
filterFeed();
show(0);
