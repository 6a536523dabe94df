// Figures show one step at a time, and the groups that are ticked.
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
  zoom.addEventListener("change", () => {
    figure.querySelector("svg").setAttribute("viewBox", zoom.checked ? figure.dataset.part : figure.dataset.whole);
  });
  showStep(figure);
}
