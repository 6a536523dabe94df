"use strict";
// Tables sort by a click on a column's head, by numbers where cells have them; images of the page enlarge.
function valueOf(row, column) {
  const cell = row.cells[column];
  const stated = cell.dataset.value;
  const number = Number(stated !== undefined ? stated : cell.textContent.replaceAll(",", ""));
  return { number: stated === "" ? NaN : number, text: cell.textContent.trim() };
}
function compare(a, b) {
  if (!Number.isNaN(a.number) && !Number.isNaN(b.number)) return a.number - b.number;
  // What has no number stands at the end, whichever way the others are sorted.
  if (Number.isNaN(a.number) !== Number.isNaN(b.number)) return Number.isNaN(a.number) ? Infinity : -Infinity;
  return a.text.localeCompare(b.text);
}
function sortBy(head) {
  const table = head.closest("table");
  const column = head.cellIndex;
  const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const rows = Array.from(table.tBodies[0].rows);
  rows.sort((a, b) => {
    const order = compare(valueOf(a, column), valueOf(b, column));
    return Number.isFinite(order) ? sign * order : order;
  });
  table.tBodies[0].append(...rows);
}
for (const head of document.querySelectorAll('table.sortable th[scope="col"]')) {
  head.tabIndex = 0;
  head.addEventListener("click", () => sortBy(head));
  head.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      sortBy(head);
    }
  });
}
const images = document.querySelectorAll("figure img");
if (images.length > 0) {
  const dialog = document.createElement("dialog");
  const large = document.createElement("img");
  dialog.append(large);
  document.body.append(dialog);
  dialog.addEventListener("click", () => dialog.close());
  for (const image of images) {
    image.classList.add("enlarge");
    image.addEventListener("click", () => {
      large.src = image.src;
      large.alt = image.alt;
      dialog.showModal();
    });
  }
}
