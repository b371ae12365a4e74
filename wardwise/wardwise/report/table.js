// ---- table of requests -------------------------------------------------------------------
/** Sorting and filters of the table; returns a function that applies the filters again. */
function requestTable(chosenRobot, showRow) {
  const table = byId("requests");
  const body = table.tBodies[0];

  function filterRows() {
    const text = byId("search").value.trim().toLowerCase();
    let shown = 0;
    for (const row of body.rows) {
      const { robot, priority, status } = row.dataset;
      const fits = (!chosenRobot() || robot === chosenRobot())
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
    table.querySelectorAll("[aria-sort]").forEach((other) => other.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = (row) => data.rows[Number(row.dataset.row)].sort[column];
    const order = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
    const rows = [...body.rows].sort((a, b) => (rising ? 1 : -1) * order(key(a), key(b)));
    body.append(...rows);
  }

  table.querySelectorAll("[data-column]").forEach((button) => button.addEventListener("click", () =>
    sortRows(button.parentElement, Number(button.dataset.column))));
  ["search", "priority", "status"].forEach((id) => byId(id).addEventListener("input", filterRows));
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) showRow(Number(row.dataset.row));
  });
  return filterRows;
}
