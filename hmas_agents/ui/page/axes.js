// Where is a second, and where is a value? Scales, ticks and grids of the charts.

import { svg } from "./dom.js";
import { elapsed } from "./format.js";

export const MARGIN = { left: 70, right: 10 };
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];

export function timeScale(width, spanS) {
  const plot = Math.max(50, width - MARGIN.left - MARGIN.right);
  const x = (atS) => MARGIN.left + (plot * Math.min(Math.max(atS, 0), spanS)) / spanS;
  x.width = width;
  x.spanS = spanS;
  x.invert = (pixel) => ((pixel - MARGIN.left) / plot) * spanS;
  const least = (spanS * 70) / plot;
  const step = TIME_STEPS.find((s) => s >= least) ?? Math.ceil(least / 86400) * 86400;
  x.ticks = [];
  for (let t = 0; t <= spanS; t += step) x.ticks.push(t);
  return x;
}

// A round number at or above `value`, for the top of a scale.
export function roundUp(value) {
  const base = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 1.5, 2, 3, 4, 5, 8, 10].map((m) => m * base).find((v) => v >= value);
}

// Labels at the ends stay within the drawing.
const anchor = (x, t) => (t === 0 ? "start" : x(t) > x.width - MARGIN.right - 12 ? "end" : "middle");

export function timeAxis(x, y) {
  return svg(
    "g",
    { class: "axis", "aria-hidden": "true" },
    svg("line", { x1: MARGIN.left, x2: x.width - MARGIN.right, y1: y, y2: y }),
    x.ticks.map((t) =>
      svg("text", { x: x(t), y: y + 14, "text-anchor": anchor(x, t) }, elapsed(t)),
    ),
  );
}

export function grid(x, top, height, max, write, title) {
  const y = (value) => top + height - (height * Math.min(value, max)) / max;
  const values = [0, max / 2, max];
  const node = svg(
    "g",
    { class: "grid", "aria-hidden": "true" },
    svg("text", { class: "title", x: 0, y: top - 8 }, title),
    x.ticks.map((t) => svg("line", { class: "faint", x1: x(t), x2: x(t), y1: top, y2: top + height })),
    values.map((v) => svg("line", { x1: MARGIN.left, x2: x.width - MARGIN.right, y1: y(v), y2: y(v) })),
    values.map((v) =>
      svg("text", { x: MARGIN.left - 6, y: y(v) + 4, "text-anchor": "end" }, write(v)),
    ),
  );
  return { y, node };
}
