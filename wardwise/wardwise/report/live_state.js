// ---- the day: what was known and planned at any moment -----------------------------------
// Trips of a robot after each moment at which they changed: [moment, trips], oldest first.
const versions = data.robots.map(() => [[-1, []]]);

/** Stops with the way there, from the flat list of a trip. */
function unpack([depart, home, back, isBrokenOff, ...flat]) {
  const stops = [];
  for (let k = 0; k < flat.length; k += 3) {
    const isPickup = flat[k] < 0;
    const row = isPickup ? -1 - flat[k] : flat[k];
    const end = flat[k + 2] + data.requests[row].serviceS;
    const place = data.requests[row].ends[isPickup ? 0 : 1];
    stops.push({
      row, isPickup, place, leave: flat[k + 1], start: flat[k + 2],
      end: isBrokenOff ? Math.min(end, back) : end,
    });
  }
  return { depart, home, back, isBrokenOff: Boolean(isBrokenOff), stops };
}

data.moments.forEach(([, , changes], moment) => {
  for (const [robot, kept, trips] of changes) {
    const [, before] = versions[robot][versions[robot].length - 1];
    versions[robot].push([moment, [...before.slice(0, kept), ...trips.map(unpack)]]);
  }
});

/** Index of the last item that is no greater than `value`. */
function lastUpTo(items, key, value) {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (key(items[middle]) <= value) low = middle + 1; else high = middle;
  }
  return low - 1;
}

const momentAt = (t) => lastUpTo(data.moments, (moment) => moment[0], t);
const versionAt = (robot, moment) => lastUpTo(versions[robot], (version) => version[0], moment);

const standing = { moment: -2, of: new Map() };

/** Where each known request stands after a moment: row to [status, time of the answer]. */
function standingAt(moment) {
  if (standing.moment !== moment) {
    standing.moment = moment;
    standing.of = new Map();
    data.moments.slice(0, moment + 1).forEach(([t, answers]) =>
      answers.forEach(([row, status]) => standing.of.set(row, [status, t])));
  }
  return standing.of;
}

/** Everything that the page shows of one moment. */
function stateAt(t) {
  const moment = momentAt(t);
  const version = data.robots.map((_, robot) => versionAt(robot, moment));
  const trips = version.map((number, robot) => versions[robot][number][1]);
  const visits = new Map();
  trips.forEach((list, robot) => list.forEach((trip, number) => trip.stops.forEach((stop) => {
    if (!stop.isPickup) visits.set(stop.row, { robot, number, stop });
  })));
  return { t, moment, version, trips, visits, standing: standingAt(moment) };
}

/** The counters; those of the requests add up to `known`. */
function countsOf({ t, trips, visits, standing: stands }) {
  const counts = { known: stands.size, served: 0, open: 0, waiting: 0, denied: 0, robots: 0, charging: 0, spares: 0 };
  for (const [row, [status]] of stands) {
    if (status === "accepted") counts[visits.get(row).stop.start <= t ? "served" : "open"] += 1;
    else counts[status === "pending" ? "waiting" : "denied"] += 1;
  }
  trips.forEach((list, robot) => {
    if (chargerAt(robot, t) !== undefined) counts.charging += 1;
    if (list.length) counts.robots += 1;
    else if (data.robots[robot][1] > t) counts.spares += 1;
  });
  return counts;
}

/** Level of a robot's battery, in percent; null if it has none. */
function levelAt(robot, t) {
  const battery = data.batteries[robot];
  if (!battery) return null;
  const k = lastUpTo(battery.levels, (point) => point[0], t);
  const [from, to] = [battery.levels[Math.max(k, 0)], battery.levels[k + 1]];
  if (k < 0 || !to) return from[1];
  return from[1] + ((to[1] - from[1]) * (t - from[0])) / (to[0] - from[0]);
}

/** Station at which a robot is being charged, or undefined. */
function chargerAt(robot, t) {
  const charges = data.batteries[robot]?.charges || [];
  const charge = charges[lastUpTo(charges, (item) => item[1], t)];
  return charge && t < charge[2] ? charge[0] : undefined;
}

/** Where a robot is: at a place, or under way from `from` to `to` with a share of the time gone. */
function whereIs(trips, t) {
  const trip = trips[lastUpTo(trips, (item) => item.depart, t)];
  if (!trip || t >= trip.back) return { at: 0, isOut: false };
  let here = 0;
  for (const { leave, start, place } of trip.stops) {
    if (t < leave) return { at: here, isOut: true };
    if (t < start) return { from: here, to: place, share: (t - leave) / (start - leave), isOut: true };
    here = place;
  }
  if (t < trip.home || trip.isBrokenOff) return { at: here, isOut: true };
  return { from: here, to: 0, share: (t - trip.home) / (trip.back - trip.home), isOut: true };
}

// ---- words -------------------------------------------------------------------------------
/** A moment as people read it; `Clock.moment` writes the same. */
function clock(t) {
  if (data.isPlain) return t.toLocaleString("en", { maximumFractionDigits: 1 });
  const total = Math.round(t + (data.startH || 0) * 3600);
  const [hours, minutes] = [Math.floor(total / 3600), Math.floor((total % 3600) / 60)];
  const tail = String(minutes).padStart(2, "0");
  return data.startH === null ? `+${hours}:${tail}` : `${String(hours % 24).padStart(2, "0")}:${tail}`;
}

const inPercent = (level) => `${Math.floor(level)} %`;
const VERDICTS = { accepted: "accepted", pending: "waiting", denied: "denied", unservable: "too late" };
const percent = (t) => 100 * Math.min(Math.max(t / data.endS, 0), 1);
