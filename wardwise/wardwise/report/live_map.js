// ---- map: where the robots are and where they drive now ----------------------------------
const MARKS = ".mark.ward, .mark.theatre, .mark.place";

/** Lines on each floor along the part of a way between two shares of its time. */
function stretches(way, from, to) {
  const lines = [];
  for (let k = 2; k < way.length; k += 2) {
    const [start, end] = [way[k - 1] / 1000, way[k + 1] / 1000];
    const [a, b] = [data.points[way[k - 2]], data.points[way[k]]];
    if (end <= from || start >= to || a[2] !== b[2]) continue;
    const at = (share) => {
      const part = Math.min(Math.max((share - start) / Math.max(end - start, 1e-9), 0), 1);
      return [a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1])].map((value) => value.toFixed(1));
    };
    lines.push([a[2], `M${at(Math.max(from, start)).join(" ")}L${at(Math.min(to, end)).join(" ")}`]);
  }
  return lines;
}

/** Point of a way at a share of its time; on a ride the floor changes half-way. */
function pointOf(way, share) {
  let k = 2;
  while (k < way.length - 2 && way[k + 1] / 1000 < share) k += 2;
  const [start, end] = [way[k - 1] / 1000, way[k + 1] / 1000];
  const [a, b] = [data.points[way[k - 2]], data.points[way[k]]];
  const part = Math.min(Math.max((share - start) / Math.max(end - start, 1e-9), 0), 1);
  if (a[2] !== b[2]) return part < 0.5 ? a : b;
  return [a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1]), a[2]];
}

const wayOf = (from, to) => data.ways[`${from} ${to}`];
/** Drawing's point of a place: any way that starts there does. */
const pointOfPlace = new Map();
for (const [pair, way] of Object.entries(data.ways)) {
  const [from, to] = pair.split(" ").map(Number);
  pointOfPlace.set(from, way[0]);
  pointOfPlace.set(to, way[way.length - 2]);
}

function drawWay(from, to, shares, kind) {
  for (const [floor, d] of stretches(wayOf(from, to), ...shares))
    draw(layer("routes", floor), "path", { d, class: kind, "stroke-width": 4 });
}

/** All ways of the chosen robot's trip: driven, and still to drive. */
function drawTrip(trips, t) {
  const trip = trips[lastUpTo(trips, (item) => item.depart, t)] || trips[0];
  if (!trip || t >= trip.back) return;
  let here = 0;
  const legs = trip.stops.map(({ leave, place }) => [leave, place]);
  if (!trip.isBrokenOff) legs.push([trip.home, 0]);
  for (const [leave, place] of legs) {
    drawWay(here, place, [0, 1], leave > t ? "to-come" : "driven");
    here = place;
  }
}

// Labels of the robots, made once and then moved: measuring text at every frame is slow.
const labels = new Map();

function labelOf(name, floor, level) {
  const short = name.length > 6 ? `…${name.slice(-4)}` : name;
  if (!labels.has(name)) {
    // Wide enough for the full battery.
    const group = drawLabel(layer("order", floor), level === null ? short : `${short} 100 %`, {});
    draw(group, "title", {}, name);
    labels.set(name, group);
  }
  const group = labels.get(name);
  const text = level === null ? short : `${short} ${inPercent(level)}`;
  if (group.querySelector("text").textContent !== text) group.querySelector("text").textContent = text;
  return group;
}

/** A label that stays inside its drawing; robots at one point stand side by side or, if wide, in a pile. */
function drawRobot(name, level, [x, y, floor], isChosen, place) {
  const group = labelOf(name, floor, level);
  const into = layer("order", floor);
  const half = Number(group.querySelector("rect").getAttribute("width")) / 2;
  const [dx, dy] = level === null ? [40 * place, 0] : [0, 30 * place];
  const inside = Math.min(Math.max(x + dx, half), into.ownerSVGElement.viewBox.baseVal.width - half);
  group.setAttribute("class", `robot${isChosen ? " chosen" : ""}`);
  group.setAttribute("transform", `translate(${inside.toFixed(1)} ${(y + dy).toFixed(1)})`);
  into.append(group);
}

function showMap(state, robot, row) {
  all(".routes, .order").forEach((group) => group.replaceChildren());
  const places = new Map();
  let numHome = 0;
  state.trips.forEach((trips, index) => {
    const name = data.robots[index][0];
    const where = whereIs(trips, state.t);
    const isChosen = name === robot;
    const level = levelAt(index, state.t);
    if (isChosen) drawTrip(trips, state.t);
    if (!where.isOut) {
      numHome += 1;
      return;
    }
    const isDriving = where.from !== undefined;
    if (isDriving) drawWay(where.from, where.to, [where.share, 1], isChosen ? "now chosen" : "now");
    const point = isDriving ? pointOf(wayOf(where.from, where.to), where.share)
      : data.points[pointOfPlace.get(where.at)];
    const key = point.map(Math.round).join(" ");
    places.set(key, [...(places.get(key) || []), [name, level, point, isChosen]]);
  });
  for (const group of places.values())
    group.forEach(([name, level, point, isChosen], k) =>
      drawRobot(name, level, point, isChosen, k - (group.length - 1) / 2));
  showPlaces(state, row);
  showChargers(state.t);
  const ways = [...places.values()].reduce((sum, group) => sum + group.length, 0);
  byId("map-note").textContent = `${ways} out, ${numHome} at the ${data.hasSite ? "dock" : "depot"}`;
}

/** Robots on charge: how many at each station, and in words who. */
function showChargers(t) {
  const at = new Map();
  const words = [];
  data.robots.forEach(([name], robot) => {
    const station = chargerAt(robot, t);
    if (station === undefined) return;
    const point = data.chargers[station];
    at.set(point, [...(at.get(point) || []), name]);
    words.push(`${name} ${inPercent(levelAt(robot, t))}`);
  });
  for (const [point, names] of at) {
    const [x, y, floor] = data.points[point];
    const group = drawLabel(layer("order", floor), `⚡ ${names.length}`, { class: "on-charge" });
    group.setAttribute("transform", `translate(${x} ${y + 58})`);
    draw(group, "title", {}, `On charge: ${names.join(", ")}`);
  }
  const note = byId("charging-note");
  if (note) note.textContent = words.length ? `; on charge: ${words.join(", ")}` : "; none on charge";
}

/** Places with open requests stand out; the others step back. */
function showPlaces(state, row) {
  const open = new Set();
  for (const [number, [status]] of state.standing) {
    const visit = state.visits.get(number);
    const isOpen = status === "pending" || (status === "accepted" && visit.stop.start > state.t);
    if (isOpen) data.requests[number].ends.forEach((place) => open.add(pointOfPlace.get(place)));
  }
  const chosen = row === null ? [] : data.requests[row].ends.map((place) => pointOfPlace.get(place));
  all(MARKS).forEach((mark) => {
    const point = Number(mark.dataset.point);
    mark.classList.toggle("idle", !open.has(point));
    mark.classList.toggle("chosen", chosen.includes(point));
  });
}
