// How do two runs differ? Side by side on one time axis, and in a table of differences.

import { get } from "./api.js";
import { drawTimeline, lineClass, sameSeries, topRate } from "./charts.js";
import { el, name, option, refill, visible } from "./dom.js";
import { elapsed, number, percent, short } from "./format.js";
import { isLive } from "./live.js";
import { runTitle } from "./run_view.js";

const SIDES = ["A", "B"];

export class CompareView {
  constructor(main) {
    this.pick = el("section", { class: "run-head", "aria-label": "Runs compared" });
    this.charts = SIDES.map((side) => el("div", { class: "chart", "aria-label": `Run ${side}` }));
    this.legend = el("div", { class: "legend" });
    this.heads = SIDES.map(() => el("h2", {}));
    this.tables = el("div", { class: "tables" });
    const sides = SIDES.map((_, i) => el("section", { class: "panel" }, this.heads[i], this.charts[i]));
    main.replaceChildren(this.pick, this.legend, el("div", { class: "sides" }, sides), this.tables);
    this.pair = [];
    this.data = null;
    this.resized = new ResizeObserver(() => this.data && this.drawCharts());
    this.resized.observe(this.charts[0]);
  }

  async show([a, b], pulse) {
    this.pulse = pulse;
    this.runs = (await get("/api/runs")).runs;
    if (!this.runs.length) {
      refill(this.pick, el("p", { class: "waiting" }, "There is no run yet to compare."));
      return;
    }
    const newest = this.runs.at(-1).key;
    this.pair = [a ?? this.runs.at(-2)?.key ?? newest, b ?? newest];
    await this.load();
  }

  async load() {
    const [a, b] = this.pair.map(encodeURIComponent);
    this.data = await get(`/api/compare/${a}/${b}`);
    document.title = "compare · H-MAS";
    this.draw();
  }

  draw() {
    const selects = this.pair.map((key, i) => {
      const select = el(
        "select",
        {
          "data-key": `run-${SIDES[i]}`,
          on: { change: () => (location.hash = `#/compare/${(i ? [this.pair[0], select.value] : [select.value, this.pair[1]]).join("/")}`) },
        },
        [...this.runs].reverse().map((run) => option(run.key, runTitle(run, this.runs), run.key === key)),
      );
      return el("label", { class: "pick" }, `${SIDES[i]} `, select);
    });
    refill(this.pick, selects);
    this.drawCharts();
    refill(this.tables, this.differences(), this.byName("Attainment by tenant", this.data.tenants, percent, 1), this.byName("Misses by cause", this.data.misses, number, -1), this.settings());
  }

  drawCharts() {
    const lines = this.data.sides.map((side) => side.timeline);
    const spanS = Math.max(...lines.map((line) => line.span_s));
    const top = Math.max(...lines.map(topRate));
    // The same tenant gets the same line on both sides, also where only one of them has it.
    const [a, b] = lines.map((line) => line.series);
    const order = [...a, ...b.filter((s) => !a.some((other) => sameSeries(s, other)))];
    lines.forEach((line, i) => {
      const key = this.pair[i];
      const ledger = key.split("-")[0];
      this.heads[i].replaceChildren(`${SIDES[i]}: `, name(this.data.sides[i].summary.label || `run ${key}`));
      drawTimeline(this.charts[i], line, {
        hidden: new Set(), live: isLive(key, this.pulse), top, spanS, order,
        link: (id) => `#/run/${key}/decision/${ledger}-${id}`,
      });
    });
    refill(this.legend, order.map((s, k) => el("span", { title: visible(s.name) }, el("i", { class: `key ${lineClass(s, k)}` }), name(s.name))));
  }

  differences() {
    const write = { share: percent, s: (v) => (v === null ? "–" : v > 100 ? elapsed(v) : `${number(v, 3)} s`) };
    return this.table("Differences", this.data.rows.map((row) => ({ ...row, write: write[row.unit] ?? ((v) => number(v, 3)), unit: row.unit === "requests/s" ? ", requests/s" : "" })));
  }

  byName(title, rows, write, better) {
    return rows.length > 0 && this.table(title, rows.map((row) => ({ ...row, write, better, unit: "" })));
  }

  table(title, rows) {
    const body = rows.map((row) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, name(row.name + row.unit)),
        el("td", { class: "num" }, row.write(row.a ?? null)),
        el("td", { class: "num" }, row.write(row.b ?? null)),
        difference(row),
      ),
    );
    return el(
      "section",
      { class: "panel" },
      el("h2", {}, title),
      el("table", { class: "plain" }, el("thead", {}, el("tr", {}, ["", "A", "B", "B − A"].map((t) => el("th", { scope: "col", class: t && "num" }, t)))), el("tbody", {}, body)),
    );
  }

  settings() {
    const { settings } = this.data;
    const body = settings.map((s) => el("tr", {}, el("th", { scope: "row" }, name(s.key)), el("td", {}, name(short(s.a))), el("td", {}, name(short(s.b)))));
    return el(
      "section",
      { class: "panel" },
      el("h2", {}, "Settings that differ"),
      settings.length
        ? el("table", { class: "plain" }, el("thead", {}, el("tr", {}, ["", "A", "B"].map((t) => el("th", { scope: "col" }, t)))), el("tbody", {}, body))
        : el("p", { class: "muted" }, "None: both runs had the same configuration."),
    );
  }

  keys() {
    return this.pair;
  }

  async beat(pulse) {
    const before = this.pulse;
    this.pulse = pulse;
    const grown = this.pair.some((key) => before && pulse.stamps[key] !== before.stamps[key]);
    if (grown && this.data) await this.load();
    else if (pulse.runs.length !== this.runs?.length && pulse.runs.length) await this.show(this.data ? this.pair : [], pulse);
  }

  escape() {}

  close() {
    this.resized.disconnect();
  }
}

// The difference with a sign, and in words whether it is for the better.
function difference({ a, b, better, write }) {
  if (a === null || a === undefined || b === null || b === undefined || a === b) return el("td", { class: "num muted" }, a === b ? "same" : "–");
  const delta = b - a;
  const text = `${delta > 0 ? "+" : "−"}${write(Math.abs(delta))}`;
  if (!better) return el("td", { class: "num" }, text);
  const good = delta * better > 0;
  return el("td", { class: `num ${good ? "good" : "bad"}` }, text, good ? " better" : " worse");
}
