"use strict";
// Uses a page as a reader does, and writes what came of it as JSON into the last element of its body.
const failures = [];
const check = (holds, text) => {
  if (!holds) failures.push(text);
};

// [red, green, blue, alpha] of a color as computed styles have it.
function channels(color) {
  const numbers = color.match(/[\d.]+/g).map(Number);
  return [...numbers.slice(0, 3), numbers.length > 3 ? numbers[3] : 1];
}
function over(top, bottom) {
  return top.slice(0, 3).map((value, index) => value * top[3] + bottom[index] * (1 - top[3]));
}
function background(element) {
  const layers = [];
  for (let one = element; one; one = one.parentElement) layers.push(channels(getComputedStyle(one).backgroundColor));
  let color = [255, 255, 255];
  for (const layer of layers.reverse()) color = over(layer, color);
  return color;
}
function luminance(color) {
  const [red, green, blue] = color.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
// Source: WCAG 2.2, success criterion 1.4.3.
function contrast(element) {
  const style = getComputedStyle(element);
  const behind = background(element);
  const front = channels(element instanceof SVGElement ? style.fill : style.color);
  const lights = [luminance(over(front, behind)), luminance(behind)].sort((a, b) => b - a);
  return (lights[0] + 0.05) / (lights[1] + 0.05);
}
function checkReadable() {
  let least = 21;
  for (const element of document.body.querySelectorAll("*")) {
    const hasText = Array.from(element.childNodes).some((node) => node.nodeType === 3 && node.data.trim());
    if (!hasText || ["SCRIPT", "STYLE"].includes(element.tagName) || !element.checkVisibility()) continue;
    const ratio = contrast(element);
    least = Math.min(least, ratio);
    check(ratio >= 4.5, `contrast ${ratio.toFixed(2)} of ${element.tagName} ${element.textContent.trim().slice(0, 40)}`);
  }
  return least;
}

const textOf = (table, column) => Array.from(table.tBodies[0].rows, (row) => row.cells[column].textContent.trim());
function checkTables() {
  let sorted = 0;
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const head of table.tHead.rows[0].cells) {
      const before = textOf(table, head.cellIndex);
      head.click();
      const first = textOf(table, head.cellIndex);
      const direction = head.getAttribute("aria-sort");
      head.click();
      const second = textOf(table, head.cellIndex);
      check(direction && direction !== head.getAttribute("aria-sort"), `no direction of ${head.textContent}`);
      check([...before].sort().join() === [...first].sort().join(), `rows of ${head.textContent} got lost`);
      const numbers = first.map((text) => Number(text.replaceAll(",", "")));
      if (numbers.length > 1 && numbers.every((number) => !Number.isNaN(number))) {
        const falls = numbers.every((number, index) => index === 0 || numbers[index - 1] >= number);
        check(falls, `${head.textContent} is not sorted: ${first}`);
      }
      // What has no number stays at the end.
      if (new Set(first.filter((text) => text !== "–" && text !== "")).size > 1) {
        check(first.join() !== second.join(), `a click on ${head.textContent} changes nothing`);
        sorted += 1;
      }
    }
  }
  return sorted;
}

function checkImages() {
  const images = document.querySelectorAll("main figure img");
  for (const image of images) check(image.complete && image.naturalWidth > 0, `${image.alt} is not shown`);
  if (images.length === 0) return 0;
  const width = images[0].getBoundingClientRect().width;
  images[0].click();
  const dialog = document.querySelector("dialog");
  check(dialog.open, "an image does not open");
  check(dialog.querySelector("img").getBoundingClientRect().width > width, "an open image is no larger");
  const caption = dialog.querySelector("figcaption");
  check(caption.textContent === images[0].alt, "an open image has no caption");
  check(contrast(caption) >= 4.5, "the caption of an open image cannot be read");
  dialog.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  check(dialog.querySelector("img").src === images[1 % images.length].src, "an arrow does not lead to the next image");
  dialog.click();
  check(!dialog.open, "an open image does not close");
  return images.length;
}

// Figures with steps: a slider shows one step, a box that is not ticked hides its group, one zooms.
function checkSteps() {
  let states = 0;
  for (const figure of document.querySelectorAll(".steps")) {
    const parts = Array.from(figure.querySelectorAll("[data-at]"));
    const boxes = Array.from(figure.querySelectorAll('input[type="checkbox"]:not(.zoom)'));
    // Chromium 150 takes parts of an SVG for visible whatever their style says.
    const isShown = (part) => getComputedStyle(part).display !== "none";
    const slider = figure.querySelector('input[type="range"]');
    for (let step = 0; slider && step <= Number(slider.max); step += 1) {
      slider.value = step;
      slider.dispatchEvent(new Event("input"));
      const hidden = boxes.filter((box) => !box.checked).map((box) => box.value);
      for (const part of parts) {
        const isOwn = ["-1", String(step)].includes(part.dataset.at) && !hidden.includes(part.dataset.group);
        check(isShown(part) === isOwn, `step ${step} and a part of ${part.dataset.at} ${part.dataset.group}`);
      }
      states += 1;
    }
    for (const box of boxes) {
      const own = parts.filter((part) => part.dataset.group === box.value);
      const before = own.filter(isShown).length;
      box.click();
      check((before > 0) !== own.some(isShown), `${box.value} does not answer`);
      box.click();
      check(own.filter(isShown).length === before, `${box.value} does not come back`);
      states += 1;
    }
    const svg = figure.querySelector("svg");
    const whole = svg.getAttribute("viewBox");
    const zoom = figure.querySelector(".zoom");
    if (zoom === null) continue;
    zoom.click();
    check(svg.getAttribute("viewBox") !== whole, "no zoom");
    zoom.click();
    check(svg.getAttribute("viewBox") === whole, "no way back from the zoom");
  }
  return states;
}

window.addEventListener("load", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
  const links = Array.from(document.querySelectorAll("nav a"));
  for (const link of links) check(document.getElementById(link.hash.slice(1)), `${link.textContent} leads nowhere`);
  const outside = performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:"));
  check(outside.length === 0, `loads ${outside.map((entry) => entry.name)}`);
  const room = document.documentElement;
  check(room.scrollWidth <= room.clientWidth, `is ${room.scrollWidth} wide in a window of ${room.clientWidth}`);
  const result = document.createElement("pre");
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const [contrasts, columns, images, steps] = [checkReadable(), checkTables(), checkImages(), checkSteps()];
  const counts = { columns, images, steps, links: links.length };
  result.textContent = JSON.stringify({ failures, isDark, contrast: contrasts, ...counts });
  result.id = "checks";
  document.body.append(result);
});
