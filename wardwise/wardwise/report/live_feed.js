// ---- feed of answers ---------------------------------------------------------------------
const entries = all("#feed .entry").map((node) => ({ node, t: Number(node.dataset.t), row: Number(node.dataset.row) }));
const feed = document.querySelector(".feed");
const feedState = { last: -2, row: null };

function filterFeed() {
  const wanted = ["verdict", "class", "rule"].map((name) => [name, byId(`by-${name}`).value]);
  let shown = 0;
  for (const { node } of entries) {
    node.hidden = wanted.some(([name, value]) => value && node.dataset[name] !== value);
    shown += node.hidden ? 0 : 1;
  }
  byId("feed-count").textContent = `${shown} of ${entries.length}`;
}

/** Open or shut what an entry holds. */
function openEntry({ node }, isOpen) {
  node.querySelector("button").setAttribute("aria-expanded", String(isOpen));
  node.querySelector(".why").hidden = !isOpen;
}

/** Scroll inside the list alone: the page stays where it is. */
function scrollTo(node) {
  const top = node.offsetTop - feed.offsetTop;
  const isSeen = top >= feed.scrollTop && top + node.offsetHeight <= feed.scrollTop + feed.clientHeight;
  if (!isSeen) feed.scrollTop = top - feed.clientHeight / 2;
}

/** What is still to come steps back; the last answer given is marked. */
function showFeed(t, row) {
  const last = lastUpTo(entries, (entry) => entry.t, t);
  if (last !== feedState.last) {
    entries.forEach(({ node }, k) => {
      node.classList.toggle("to-come", k > last);
      node.classList.toggle("current", k === last);
    });
    feedState.last = last;
    const seen = entries.slice(0, last + 1).filter(({ node }) => !node.hidden);
    if (seen.length) scrollTo(seen[seen.length - 1].node); else feed.scrollTop = 0;
  }
  if (row === feedState.row) return;
  feedState.row = row;
  entries.forEach(({ node, row: other }) => node.classList.toggle("chosen", other === row));
}

/** The next answer after a moment that the filters show, or the last one before it. */
function neighbour(t, by) {
  const shown = entries.filter(({ node }) => !node.hidden);
  return by > 0 ? shown.find((entry) => entry.t > t) : shown.filter((entry) => entry.t < t).pop();
}
