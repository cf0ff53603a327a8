"use strict";
// Tables that sort by a click on a head, and show only rows with a text. Without scripts they stand as they are.
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const value = (row, place) => {
    const cell = row.cells[place], known = cell.dataset.value;
    return known === undefined ? cell.textContent.trim().toLowerCase() : Number(known);
  };
  const compare = (one, other) =>
    typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other), "en", { numeric: true });
  heads.forEach((head, place) => {
    if (head.classList.contains("plain")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const empty = row => value(row, place) === "";
      rows.sort((a, b) => empty(a) - empty(b) || (falls ? -1 : 1) * compare(value(a, place), value(b, place)));
      body.append(...rows);
    });
  });
  if (rows.length < 4) continue;
  const bar = document.createElement("label"), input = document.createElement("input"), count = document.createElement("span");
  bar.className = "filter";
  input.type = "search";
  input.placeholder = "filter";
  input.setAttribute("aria-label", `filter the ${table.dataset.what}`);
  const show = () => {
    const wanted = input.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    count.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} ${table.dataset.what}`;
  };
  input.addEventListener("input", show);
  bar.append(input, count);
  table.parentElement.before(bar);
  show();
}
