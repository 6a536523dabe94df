"use strict";
// Tables sort by a click on a column's head, by numbers where cells have them; images of the page enlarge; the entry
// of the contents that is being read is marked; figures with steps show one at a time.
function valueOf(row, column) {
  const cell = row.cells[column];
  const stated = cell.dataset.value;
  const text = stated !== undefined ? stated : cell.textContent.replaceAll(",", "").trim();
  return { number: text === "" ? NaN : Number(text), text: cell.textContent.trim() };
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
  const rows = Array.from(table.tBodies[0].rows);
  const before = head.getAttribute("aria-sort");
  // Names from A on first, numbers from the largest.
  const isNumber = rows.some((row) => !Number.isNaN(valueOf(row, column).number));
  const first = isNumber ? "descending" : "ascending";
  const other = isNumber ? "ascending" : "descending";
  for (const one of table.tHead.rows[0].cells) one.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", before === first ? other : first);
  const sign = head.getAttribute("aria-sort") === "ascending" ? 1 : -1;
  rows.sort((a, b) => {
    const order = compare(valueOf(a, column), valueOf(b, column));
    return Number.isFinite(order) ? sign * order : order;
  });
  table.tBodies[0].append(...rows);
}
function answer(element, act) {
  element.tabIndex = 0;
  element.addEventListener("click", act);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      act();
    }
  });
}
for (const head of document.querySelectorAll('table.sortable th[scope="col"]')) answer(head, () => sortBy(head));

const images = Array.from(document.querySelectorAll("main figure img"));
if (images.length > 0) {
  const dialog = document.createElement("dialog");
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const large = document.createElement("img");
  let shown = 0;
  const show = (index) => {
    shown = (index + images.length) % images.length;
    large.src = images[shown].src;
    large.alt = images[shown].alt;
    caption.textContent = images[shown].alt;
    if (!dialog.open) dialog.showModal();
  };
  figure.append(large, caption);
  dialog.append(figure);
  document.body.append(dialog);
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") show(shown + 1);
    if (event.key === "ArrowLeft") show(shown - 1);
  });
  images.forEach((image, index) => {
    image.classList.add("zoomable");
    answer(image, () => show(index));
  });
}

const entries = new Map(Array.from(document.querySelectorAll("nav a"), (link) => [link.hash.slice(1), link]));
if (entries.size > 0 && "IntersectionObserver" in window) {
  const visible = new Set();
  const observer = new IntersectionObserver((changes) => {
    for (const change of changes) {
      if (change.isIntersecting) visible.add(change.target.id);
      else visible.delete(change.target.id);
    }
    let current = true;
    for (const [name, link] of entries) {
      if (current && visible.has(name)) {
        link.setAttribute("aria-current", "true");
        current = false;
      } else link.removeAttribute("aria-current");
    }
  });
  for (const name of entries.keys()) observer.observe(document.getElementById(name));
}

function showStep(figure) {
  const step = figure.dataset.step;
  const hidden = new Set();
  for (const box of figure.querySelectorAll("input[value]")) {
    if (box.type === "checkbox" && !box.checked) hidden.add(box.value);
  }
  for (const part of figure.querySelectorAll("[data-at]")) {
    const other = part.dataset.at !== "-1" && part.dataset.at !== step;
    part.toggleAttribute("hidden", other || hidden.has(part.dataset.group));
  }
}
for (const figure of document.querySelectorAll(".steps")) {
  const slider = figure.querySelector('input[type="range"]');
  if (slider !== null) {
    const names = slider.dataset.names.split("|");
    slider.addEventListener("input", () => {
      figure.dataset.step = slider.value;
      figure.querySelector("output").textContent = names[Number(slider.value)];
      slider.setAttribute("aria-valuetext", names[Number(slider.value)]);
      showStep(figure);
    });
  }
  for (const box of figure.querySelectorAll('input[type="checkbox"]')) box.addEventListener("change", () => showStep(figure));
  const zoom = figure.querySelector(".zoom");
  if (zoom !== null) {
    zoom.addEventListener("change", () => {
      figure.querySelector("svg").setAttribute("viewBox", zoom.checked ? figure.dataset.part : figure.dataset.whole);
    });
  }
  showStep(figure);
}
