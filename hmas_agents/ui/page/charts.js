// How did attainment and goodput go, and what changed when? One SVG on one time axis.

import { grid, MARGIN, roundUp, timeAxis, timeScale } from "./axes.js";
import { el, svg, visible } from "./dom.js";
import { elapsed, number, percent } from "./format.js";
import { drawLanes, guides } from "./lanes.js";
import { hideTip, showTip } from "./tip.js";

const TOP = 22;
const HEIGHT = 104;
const GAP = 34;

// Seconds of bin i that lie within the run; the last one may be cut off.
const binSeconds = (line, i) => Math.min(line.bin_s, line.span_s - i * line.bin_s);
const isDrawn = (line, i) => i === 0 || binSeconds(line, i) >= line.bin_s / 2;

export const attainmentOf = (line, series, i) =>
  series.offered[i] && isDrawn(line, i) ? series.met[i] / series.offered[i] : null;
export const goodputOf = (line, series, i) =>
  isDrawn(line, i) ? series.met[i] / binSeconds(line, i) : null;
const offeredOf = (line, series, i) =>
  isDrawn(line, i) ? series.offered[i] / binSeconds(line, i) : null;

// Class of a line: colour and dashes say which; the k-th tenant, overall or the others.
export const lineClass = (series, k) => (series.kind === "overall" ? "overall" : `s${k % 8}`);

export const sameSeries = (s, other) => s.name === other.name && s.kind === other.kind;

export function topRate(line) {
  const rates = line.series[0].offered.map((_, i) => offeredOf(line, line.series[0], i) ?? 0);
  return roundUp(Math.max(0.1, ...rates));
}

function path(line, x, y, values, cls) {
  let d = "";
  let drawing = false;
  const lone = [];
  values.forEach((value, i) => {
    if (value === null) return void (drawing = false);
    const at = x((i + 0.5) * line.bin_s);
    if (!drawing && (values[i + 1] ?? null) === null) lone.push([at, y(value)]);
    d += `${drawing ? "L" : "M"}${at.toFixed(1)} ${y(value).toFixed(1)}`;
    drawing = true;
  });
  return svg(
    "g",
    { class: `line ${cls}` },
    svg("path", { d }),
    lone.map(([cx, cy]) => svg("circle", { cx, cy, r: 2 })),
  );
}

// Draw a timeline into `host`. `hidden` names series left out; `top` and `spanS` may be shared
// by two runs, and so may `order`, which says which line is which series; `live` hatches what can
// still change; `link(decision)` is where a mark leads.
export function drawTimeline(host, line, { hidden, live, link, top, spanS, order }) {
  const width = Math.max(320, host.clientWidth);
  const x = timeScale(width, spanS ?? line.span_s);
  const rate = top ?? topRate(line);
  const attainment = grid(x, TOP, HEIGHT, 1, (v) => `${100 * v}%`, "SLO attainment by time of arrival");
  const goodputTop = TOP + HEIGHT + GAP;
  const goodput = grid(x, goodputTop, HEIGHT, rate, (v) => number(v, 3), "Goodput, requests/s (dotted: offered)");
  const place = (s, k) => (order ? order.findIndex((other) => sameSeries(s, other)) : k);
  const shown = line.series.map((s, k) => [s, lineClass(s, place(s, k))]).filter(([s]) => !hidden.has(s.name + s.kind));
  const bins = line.series[0].offered.map((_, i) => i);
  const ordered = [...shown].reverse(); // overall last: on top
  const plotEnd = goodputTop + HEIGHT;
  const lanes = drawLanes(line, x, plotEnd + 26, link);
  const chart = svg("svg", { class: "timeline", width, height: lanes.bottom + 4, viewBox: `0 0 ${width} ${lanes.bottom + 4}` });
  const from = line.provisional_from_s;
  if (live && from !== null && from < line.span_s) {
    const band = { class: "open", x: x(from), width: x(line.span_s) - x(from) };
    chart.append(svg("rect", { ...band, y: TOP, height: HEIGHT }), svg("rect", { ...band, y: goodputTop, height: HEIGHT }));
    if (band.width > 60) chart.append(svg("text", { class: "open", x: band.x + 4, y: TOP + 12 }, "still open"));
  }
  chart.append(
    attainment.node,
    goodput.node,
    guides(line, x, [[TOP, TOP + HEIGHT], [goodputTop, plotEnd]]),
    path(line, x, goodput.y, bins.map((i) => offeredOf(line, line.series[0], i)), "offered"),
    ...ordered.map(([s, cls]) => path(line, x, attainment.y, bins.map((i) => attainmentOf(line, s, i)), cls)),
    ...ordered.map(([s, cls]) => path(line, x, goodput.y, bins.map((i) => goodputOf(line, s, i)), cls)),
    timeAxis(x, plotEnd),
    cursor(line, x, shown, plotEnd),
    lanes.node,
  );
  host.replaceChildren(chart);
}

function cursor(line, x, shown, bottom) {
  const hair = svg("line", { class: "hair", y1: TOP, y2: bottom, visibility: "hidden" });
  const area = svg("rect", {
    class: "area", x: MARGIN.left, y: TOP, width: x.width - MARGIN.left - MARGIN.right,
    height: bottom - TOP, tabindex: "0", role: "img", "data-key": "chart",
    "aria-label": "Attainment and goodput over time; left and right arrows read the figures",
  });
  let bin = 0;
  const last = line.series[0].offered.length - 1;
  const show = (index, clientX, clientY) => {
    bin = Math.max(0, Math.min(last, index));
    const at = x((bin + 0.5) * line.bin_s);
    for (const end of ["x1", "x2"]) hair.setAttribute(end, at);
    hair.setAttribute("visibility", "visible");
    const box = area.getBoundingClientRect();
    const head = `${elapsed(bin * line.bin_s)} to ${elapsed(Math.min((bin + 1) * line.bin_s, line.span_s))}`;
    const lines = shown.map(([s, cls]) => [
      el("i", { class: `key ${cls}` }), el("bdi", { class: "cut" }, visible(s.name)),
      el("b", {}, percent(attainmentOf(line, s, bin))),
      el("span", {}, `${s.met[bin]} of ${s.offered[bin]}`),
    ]);
    showTip(clientX ?? box.left - MARGIN.left + at, clientY ?? box.top + 8, [
      el("strong", {}, head),
      el("div", { class: "readout" }, lines),
    ]);
  };
  const leave = () => {
    hair.setAttribute("visibility", "hidden");
    hideTip();
  };
  area.addEventListener("pointermove", (event) => {
    const left = area.getBoundingClientRect().left - MARGIN.left;
    show(Math.floor(x.invert(event.clientX - left) / line.bin_s), event.clientX, event.clientY);
  });
  area.addEventListener("pointerleave", leave);
  area.addEventListener("blur", leave);
  area.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(hair.getAttribute("visibility") === "hidden" ? bin : bin + step);
  });
  return svg("g", {}, hair, area);
}
