"use strict";

// Tooltips: the values of a figure's curves at the report nearest to the pointer.
const tooltip = document.createElement("div");
tooltip.className = "tooltip";
tooltip.hidden = true;
document.body.append(tooltip);

function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}

function format(value, percent) {
  if (value === null) return "unknown";
  return percent ? (100 * value).toFixed(0) + " %" : value.toLocaleString("en", {maximumSignificantDigits: 4});
}

function line(className, text, value) {
  const row = document.createElement("div"), mark = document.createElement("i"), number = document.createElement("b");
  mark.className = className;
  number.textContent = value;
  row.append(mark, text, number);
  return row;
}

for (const svg of document.querySelectorAll("svg[data-curves]")) {
  const curves = JSON.parse(svg.dataset.curves);
  const [left, right, last, top, bottom] = JSON.parse(svg.dataset.plot);
  const percent = svg.dataset.percent === "1";
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cursor.setAttribute("class", "cursor");
  svg.append(cursor);
  const hide = () => { tooltip.hidden = true; cursor.removeAttribute("d"); };
  const show = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const step = (point.x - left) / (right - left) * last;
    if (point.x < left - 4 || point.x > right + 4) return hide();
    const all = curves.map((curve) => curve.x[nearest(curve.x, step)]);
    const at = all.reduce((a, b) => Math.abs(a - step) <= Math.abs(b - step) ? a : b);
    const title = document.createElement("div");
    title.textContent = `${at.toLocaleString("en")} ${svg.dataset.x}`;
    const rows = curves.map((curve) => {
      const i = nearest(curve.x, at);
      const other = curve.x[i] === at ? "" : ` (at ${curve.x[i].toLocaleString("en")})`;
      return line(curve.class, curve.name + other, format(curve.y[i], percent));
    });
    tooltip.replaceChildren(title, ...rows);
    tooltip.hidden = false;
    const x = left + at / last * (right - left);
    cursor.setAttribute("d", `M${x},${top}V${bottom}`);
    const box = tooltip.getBoundingClientRect();
    const beside = event.clientX + 16 + box.width > innerWidth ? event.clientX - 16 - box.width : event.clientX + 16;
    tooltip.style.left = `${Math.max(4, beside)}px`;
    tooltip.style.top = `${Math.max(4, Math.min(event.clientY + 12, innerHeight - box.height - 4))}px`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}

// Tables that a click on a column's name sorts.
for (const table of document.querySelectorAll(".sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const order = (a, b) => {
        const x = key(a), y = key(b);
        return Number.isNaN(Number(x)) || Number.isNaN(Number(y)) ? x.localeCompare(y) : Number(x) - Number(y);
      };
      body.append(...[...body.rows].sort((a, b) => down ? order(b, a) : order(a, b)));
    });
  });
}
