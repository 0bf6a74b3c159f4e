// What are the figures behind the lines? The timeline as a table, for reading and copying.

import { attainmentOf, goodputOf } from "./charts.js";
import { el, name } from "./dom.js";
import { elapsed, number, percent } from "./format.js";

export function figures(line) {
  const rows = line.series[0].offered.map((_, i) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, elapsed(i * line.bin_s)),
      line.series.map((series) => [
        el("td", {}, percent(attainmentOf(line, series, i))),
        el("td", {}, number(goodputOf(line, series, i), 3)),
      ]),
    ),
  );
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures" },
    el(
      "table",
      { class: "plain" },
      el(
        "thead",
        {},
        el("tr", {}, el("th", { rowspan: 2, scope: "col" }, "from"), line.series.map((s) => el("th", { colspan: 2, scope: "colgroup" }, name(s.name)))),
        el("tr", {}, line.series.map(() => [el("th", { scope: "col" }, "attained"), el("th", { scope: "col" }, "good/s")])),
      ),
      el("tbody", {}, rows),
    ),
  );
}
