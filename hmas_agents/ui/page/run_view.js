// What happened in one run? Its picker, figures, timeline, decisions, and the one that is open.

import { get } from "./api.js";
import { drawTimeline, lineClass } from "./charts.js";
import { DecisionList } from "./decision_list.js";
import { drawDecision } from "./decision_view.js";
import { el, name, option, refill, visible } from "./dom.js";
import { clock, count, elapsed, number, percent } from "./format.js";
import { isLive } from "./live.js";
import { figures } from "./figures.js";

const WIDTHS_S = [2, 5, 10, 30, 60, 300, 1800];

export class RunView {
  constructor(main) {
    this.key = "";
    this.decision = "";
    this.hidden = new Set();
    this.width = "";
    this.data = null;
    this.pulse = null;
    this.head = el("section", { class: "run-head", "aria-label": "Run" });
    this.legend = el("div", { class: "legend", role: "group", "aria-label": "Series shown" });
    this.chart = el("div", { class: "chart" });
    this.table = el("details", { class: "figures" });
    this.list = new DecisionList((id) => this.link(id));
    this.detail = el("section", { class: "detail", "aria-label": "Decision", tabindex: "-1", hidden: true });
    const timeline = el("section", { class: "panel", "aria-label": "Timeline" }, this.legend, this.chart, this.table);
    this.page = el("div", { class: "split" }, el("div", { class: "left" }, this.head, timeline, this.list.node), this.detail);
    this.main = main;
    this.resized = new ResizeObserver(() => this.data && this.draw());
    this.resized.observe(this.chart);
    this.table.addEventListener("toggle", () => this.data && this.draw());
  }

  link(decision) {
    const ledger = this.key.split("-")[0];
    return `#/run/${this.key}/decision/${ledger}-${decision}`;
  }

  async show([key, , decision], pulse) {
    this.pulse = pulse;
    const { runs } = await get("/api/runs");
    if (!runs.length) {
      this.main.replaceChildren(
        el("p", { class: "waiting" }, "Waiting for the first run: start the controller with ", el("code", {}, "hmas run"), ". This page follows by itself."),
      );
      return;
    }
    if (this.page.parentNode !== this.main) this.main.replaceChildren(this.page);
    this.runs = runs;
    key ||= runs.at(-1).key;
    if (key !== this.key || !this.data) {
      this.key = key;
      this.hidden.clear();
      await this.load();
      await this.list.load(key, true);
    }
    await this.open(decision ?? "");
  }

  async load() {
    this.data = await get(`/api/runs/${encodeURIComponent(this.key)}${this.width && `?bin_s=${this.width}`}`);
    this.stamp = this.data.stamp;
    document.title = visible(`run ${this.data.run.id} ${this.data.run.label} · H-MAS`);
    this.draw();
  }

  draw() {
    const { run, summary, timeline } = this.data;
    refill(this.head, this.picker(), this.facts(run, summary, timeline));
    refill(this.legend, this.toggles(timeline), this.widthPicker(timeline));
    const held = document.activeElement?.dataset?.key;
    const within = this.chart.contains(document.activeElement);
    drawTimeline(this.chart, timeline, {
      hidden: this.hidden,
      live: isLive(this.key, this.pulse),
      link: (id) => this.link(id),
    });
    if (within && held) this.chart.querySelector(`[data-key="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
    refill(this.table, el("summary", { "data-key": "figures" }, "Figures as a table"), this.table.open && figures(timeline));
  }

  picker() {
    const select = el(
      "select",
      { "data-key": "run", on: { change: () => (location.hash = `#/run/${select.value}`) } },
      [...this.runs].reverse().map((run) => option(run.key, runTitle(run, this.runs), run.key === this.key)),
    );
    return el("label", { class: "pick" }, "Run ", select);
  }

  facts(run, summary, timeline) {
    const facts = [
      ["mode", run.mode || "–"],
      ["began", clock(timeline.start_s)],
      ["length", elapsed(summary.span_s)],
      ["requests", number(summary.offered)],
      ["attainment", percent(summary.attainment)],
      ["goodput", summary.goodput_rps === null ? "–" : `${number(summary.goodput_rps, 3)}/s`],
      ["worst tenant", percent(summary.worst_tenant)],
      summary.own_requests > 0 && ["the controller's own", `${number(summary.own_met)} of ${number(summary.own_requests)} met`],
      ["switches", number(summary.switches)],
      ["prediction off by", summary.predictions ? `${percent(summary.prediction_error)} over ${summary.predictions}` : "–"],
    ].filter(Boolean);
    return el("dl", { class: "facts" }, facts.map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, value))));
  }

  toggles(timeline) {
    return timeline.series.map((series, k) => {
      const id = series.name + series.kind;
      return el(
        "button",
        {
          type: "button", "aria-pressed": String(!this.hidden.has(id)), "data-key": `series-${id}`,
          title: visible(series.name),
          on: {
            click: () => {
              this.hidden.has(id) ? this.hidden.delete(id) : this.hidden.add(id);
              this.draw();
            },
          },
        },
        el("i", { class: `key ${lineClass(series, k)}` }),
        name(series.name),
      );
    });
  }

  widthPicker(timeline) {
    const select = el(
      "select",
      {
        "data-key": "bin",
        on: {
          change: async () => {
            this.width = select.value;
            await this.load();
          },
        },
      },
      option("", `auto (${timeline.bin_s} s)`, !this.width),
      WIDTHS_S.filter((w) => timeline.span_s / w <= 2000).map((w) => option(w, `${w} s`, String(w) === this.width)),
    );
    return el("label", { class: "end" }, "bins ", select);
  }

  // Show a decision, or none; `again` only brings what is shown up to date.
  async open(key, again = false) {
    const before = this.decision;
    this.decision = key;
    this.list.select(key);
    if (!key) {
      this.page.classList.remove("open");
      this.detail.hidden = true;
      this.detail.replaceChildren();
      if (before) this.list.focus(before);
      return;
    }
    let content;
    try {
      const decision = await get(`/api/decisions/${encodeURIComponent(key)}`);
      this.settled = decision.realised !== null;
      content = drawDecision(decision, this.data.timeline, {
        close: () => this.escape(),
        previous: this.list.neighbour(key, 1),
        next: this.list.neighbour(key, -1),
      });
    } catch (error) {
      content = [el("p", { class: "problem", role: "alert" }, visible(error.message)), el("a", { href: `#/run/${this.key}` }, "Close")];
    }
    if (this.decision !== key) return; // another one was opened meanwhile
    this.page.classList.add("open");
    this.detail.hidden = false;
    this.detail.replaceChildren(...[content].flat());
    if (again) return;
    this.detail.scrollTop = 0;
    this.detail.scrollIntoView({ block: "start" }); // on a phone it takes the list's place
    this.detail.focus({ preventScroll: true });
  }

  keys() {
    return this.key ? [this.key] : [];
  }

  async beat(pulse) {
    const wasLive = isLive(this.key, this.pulse);
    this.pulse = pulse;
    if (!this.data || (this.runs && pulse.runs.length !== this.runs.length)) {
      if (!pulse.runs.length) return;
      this.runs = (await get("/api/runs")).runs;
      if (!this.data) return void (await this.show([], pulse));
      this.draw();
    }
    const stamp = pulse.stamps[this.key];
    if (stamp && stamp !== this.stamp) {
      await this.load();
      await this.list.load(this.key, false);
      if (this.decision && !this.settled) await this.open(this.decision, true);
    } else if (wasLive !== isLive(this.key, pulse)) {
      this.draw();
    }
  }

  escape() {
    if (this.decision) location.hash = `#/run/${this.key}`;
  }

  close() {
    this.resized.disconnect();
  }
}

export function runTitle(run, runs) {
  const several = new Set(runs.map((other) => other.ledger)).size > 1;
  const file = several ? ` · ${run.ledger.split("/").at(-1)}` : "";
  return `${run.id} · ${run.label || "no label"} · ${run.mode || "?"} · ${count(run.decisions, "decision")}, ${count(run.outcomes, "request")}${file}`;
}
