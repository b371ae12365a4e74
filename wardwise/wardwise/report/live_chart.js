// ---- schedule ----------------------------------------------------------------------------
const lanes = all(".lane[data-robot]").map((lane) => ({
  lane, track: lane.querySelector(".track"), note: lane.querySelector("small"),
  robot: Number(lane.dataset.index), version: -1, parts: [], count: "",
}));
const out = document.querySelector(".lane.out .track");
const machine = all(".lane.machine [data-known]").map((node) => ({ node, known: Number(node.dataset.known) }));

function piece(tag, kind, start, end, label) {
  const node = document.createElement(tag);
  node.className = kind;
  node.style.left = `${percent(start)}%`;
  node.style.width = `${percent(end) - percent(start)}%`;
  if (label) node.title = label;
  return node;
}

/** The way to a stop, waiting before it, and the service, in one target. */
function stopNode(stop, free) {
  const request = data.requests[stop.row];
  const isLate = !stop.isPickup && stop.start > request.dueS + 0.05;
  const kind = isLate ? "late" : request.releaseS > 0 ? "service dynamic" : "service";
  const node = piece("button", "stop", free, stop.end);
  node.type = "button";
  node.dataset.row = stop.row;
  const label = `${request.id}, ${request.place}, window ${request.window}, ${
    stop.isPickup ? "pickup" : "service"} ${clock(stop.start)}${isLate ? ", late" : ""}`;
  node.title = label;
  node.setAttribute("aria-label", label);
  const width = Math.max(stop.end - free, 1e-9);
  for (const [part, from, to] of [["wait", free, stop.leave], ["drive", stop.leave, stop.start], [kind, stop.start, stop.end]]) {
    if (to <= from && part !== kind) continue;
    const bar = document.createElement("i");
    bar.className = `bar ${part}`;
    bar.style.left = `${100 * (from - free) / width}%`;
    bar.style.width = `${100 * (to - from) / width}%`;
    node.append(bar);
  }
  return node;
}

/** Draw a robot's trips; each part remembers from when on it is committed. */
function fillLane(item, trips) {
  const parts = [];
  const add = (node, from) => parts.push({ node, from });
  trips.forEach((trip, number) => {
    const label = `Trip ${number + 1}, ${clock(trip.depart)} to ${clock(trip.back)}`;
    add(piece("i", "bar trip", trip.depart, trip.back, label), trip.depart);
    let free = trip.depart;
    for (const stop of trip.stops) {
      add(stopNode(stop, free), stop.leave);
      free = stop.end;
    }
    if (trip.isBrokenOff) {
      const broken = `Breaks down at ${clock(trip.back)}`;
      add(piece("i", "bar breakdown", trip.back, trip.back, broken), trip.back);
    } else {
      add(piece("i", "bar wait", free, trip.home, "Wait"), free);
      add(piece("i", "bar drive", trip.home, trip.back, "Way home"), trip.home);
      if (number < trips.length - 1)
        add(piece("i", "bar reload", trip.back, trip.back + data.reloadS, "Reload"), trip.back);
    }
  });
  for (const [station, start, end] of data.batteries[item.robot]?.charges || []) {
    const label = `Charges at station ${station}, ${clock(start)} to ${clock(end)}`;
    parts.push({ node: piece("i", "bar charge", start, end, label), from: start, until: end });
  }
  const focused = item.track.contains(document.activeElement) ? document.activeElement.dataset.row : null;
  item.track.replaceChildren(...item.track.querySelectorAll(".band, .battery"), ...parts.map((part) => part.node));
  const stops = [...item.track.querySelectorAll(".stop")];
  stops.forEach((stop, k) => { stop.tabIndex = k === 0 ? 0 : -1; });
  if (focused !== null) stops.find((stop) => stop.dataset.row === focused)?.focus({ preventScroll: true });
  item.parts = parts;
  const count = trips.length;
  item.count = count ? `${count} trip${count === 1 ? "" : "s"}` : "spare";
  item.lane.classList.toggle("spare", !count);
}

/** Requests that wait for a place or were turned down, at the moment of their answer. */
function fillOut(state) {
  const nodes = [];
  for (const [row, [status, t]] of state.standing) {
    if (status === "accepted") continue;
    const node = piece("button", `stop mark-${status === "pending" ? "waiting" : "denied"}`, t, t);
    const label = `${data.requests[row].id}, ${VERDICTS[status]} at ${clock(t)}`;
    Object.assign(node, { type: "button", title: label, tabIndex: nodes.length ? -1 : 0 });
    node.setAttribute("aria-label", label);
    node.dataset.row = row;
    nodes.push(node);
  }
  byId("out-count").textContent = nodes.length ? `${nodes.length} now` : "none";
  out.replaceChildren(out.querySelector(".band"), ...nodes);
}

/** Draw level and charges of a robot up to a moment; what comes then is not known yet. */
function showBattery(item, t) {
  const level = levelAt(item.robot, t);
  const note = level === null ? item.count : `${item.count}\n${inPercent(level)}`;
  if (item.note.textContent !== note) item.note.textContent = note;
  item.track.querySelector(".battery .to-come")?.setAttribute("x", percent(t));
  for (const { node, from, until } of item.parts)
    if (until) node.style.width = `${percent(Math.min(Math.max(t, from), until)) - percent(from)}%`;
}

function showChart(state, previous, isFresh) {
  for (const item of lanes) {
    const number = state.version[item.robot];
    if (number !== item.version) {
      fillLane(item, state.trips[item.robot]);
      // What has just been placed lights up for a moment.
      const isNew = ({ node }) => node.dataset.row && !previous.visits.has(Number(node.dataset.row));
      if (isFresh) item.parts.filter(isNew).forEach(({ node }) => node.classList.add("fresh"));
      item.version = number;
      item.shownAt = null;
    }
    if (item.shownAt === state.t) continue;
    item.shownAt = state.t;
    showBattery(item, state.t);
    item.parts.forEach((part) => {
      const isAhead = part.from > state.t;
      if (part.isAhead !== isAhead) part.node.classList.toggle("ahead", isAhead);
      part.isAhead = isAhead;
    });
  }
  for (const { node, known } of machine) {
    const isKnown = known <= state.t;
    if (node.hidden === isKnown) node.hidden = !isKnown;
  }
  if (out && (!previous || previous.moment !== state.moment)) fillOut(state);
  document.querySelector(".past i").style.width = `${percent(state.t)}%`;
  document.querySelector(".present i").style.left = `${percent(state.t)}%`;
}

/** Where the schedule is wider than its frame, scroll the present into sight. */
function keepNowInSight(t) {
  const frame = document.querySelector(".chart");
  if (frame.scrollWidth <= frame.clientWidth) return;
  const track = frame.querySelector(".axis .track");
  const at = (track.offsetWidth * percent(t)) / 100;
  const width = frame.clientWidth - track.offsetLeft;
  if (at < frame.scrollLeft || at > frame.scrollLeft + width) frame.scrollLeft = at - width / 3;
}

/** Mark the chosen request in the chart, and its window where it is served. */
function markChosen(row, robot) {
  all(".chart .band").forEach((band) => { band.hidden = true; });
  all(".chart .stop").forEach((stop) => stop.classList.toggle("chosen", Number(stop.dataset.row) === row));
  lanes.forEach(({ lane }) => {
    const isThis = lane.dataset.robot === robot;
    lane.classList.toggle("dim", Boolean(robot) && !isThis);
    lane.querySelector(".name").setAttribute("aria-pressed", String(isThis));
  });
  const stop = row === null ? null : document.querySelector(`.chart .stop[data-row="${row}"]`);
  if (!stop) return;
  const band = stop.parentElement.querySelector(".band");
  const [left, width] = data.rows[row].window;
  band.style.left = `${left}%`;
  band.style.width = `${width}%`;
  band.hidden = false;
}
