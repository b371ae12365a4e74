const robots = all(".lane[data-robot]").map((lane) => lane.dataset.robot);
const state = { robot: "", trip: "", row: null };

// ---- map -------------------------------------------------------------------------------
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

/** Numbers of the legs of a trip that end at a charging station. */
const charges = (trip) => trip.charges || [];

/** Stops of one trip carry their order; of several trips, the number of visits. */
function drawStops(trips) {
  const visits = new Map();
  const charged = new Set();
  trips.forEach((trip) => trip.legs.slice(0, trip.isBrokenOff ? undefined : -1).forEach((leg, k) => {
    const point = leg[leg.length - 1];
    if (charges(trip).includes(k)) charged.add(point);
    else visits.set(point, [...(visits.get(point) || []), k + 1 - charges(trip).filter((c) => c < k).length]);
  }));
  all(".mark.charger").forEach((mark) =>
    mark.classList.toggle("faded", state.robot !== "" && data.hasCharges && !charged.has(Number(mark.dataset.point))));
  all(".mark.ward, .mark.theatre, .mark.place").forEach((mark) =>
    mark.classList.toggle("faded", state.robot !== "" && !visits.has(Number(mark.dataset.point))));
  if (!state.robot) return;
  for (const [point, order] of visits) {
    const [x, y, floor] = data.points[point];
    const shown = trips.length === 1 ? order.join(", ") : `×${order.length}`;
    drawLabel(layer("order", floor), shown, { transform: `translate(${x} ${y})` });
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
  showFacts(data.rows[row].facts);
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

const chart = document.querySelector(".chart");
for (const kind of ["pointerover", "focusin", "click"])
  chart.addEventListener(kind, (event) => {
    const stop = event.target.closest(".stop");
    if (stop) showRow(Number(stop.dataset.row));
  });
chart.addEventListener("keydown", walkStops);
all(".lane button.name").forEach((button) => button.addEventListener("click", () => {
  const { robot } = button.parentElement.dataset;
  choose(robot === state.robot ? "" : robot);
}));
zoomButtons();

const filterRows = requestTable(() => state.robot, showRow);
choose("");
