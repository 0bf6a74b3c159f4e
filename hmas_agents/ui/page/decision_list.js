// Which decisions were made? A filtered table; arrows move, Enter opens.

import { get } from "./api.js";
import { el, option, refill, rove, visible } from "./dom.js";
import { count, elapsed, percent } from "./format.js";

const HORIZONS = { "": "both horizons", long: "long horizon", short: "short horizon" };
const ONLY = { "": "all", changed: "changes only", faults: "with faults" };

export class DecisionList {
  constructor(link) {
    this.link = link;
    this.filters = { horizon: "", only: "" };
    this.rows = [];
    this.selected = "";
    this.counted = el("span", { class: "muted", role: "status" });
    this.body = el("tbody", { on: { keydown: (event) => rove(event, this.links(), ["ArrowUp", "ArrowDown"]) } });
    this.more = el("button", { type: "button", hidden: true, on: { click: () => this.older() } }, "Older decisions");
    const columns = ["time", "decision", "horizon", "trigger", "predicted", "realised", "faults"];
    this.node = el(
      "section",
      { class: "panel decisions", "aria-label": "Decisions" },
      el("div", { class: "bar" }, el("h2", {}, "Decisions"), this.filter("horizon", HORIZONS), this.filter("only", ONLY), this.counted),
      el("table", {}, el("thead", {}, el("tr", {}, columns.map((title) => el("th", { scope: "col" }, title)))), this.body),
      this.more,
    );
  }

  filter(key, choices) {
    const node = el(
      "select",
      {
        "aria-label": key === "only" ? "which decisions" : key,
        on: {
          change: async () => {
            this.filters[key] = node.value;
            await this.load(this.key, true);
          },
        },
      },
      Object.entries(choices).map(([value, text]) => option(value, text, !value)),
    );
    return node;
  }

  query(before = "") {
    const query = new URLSearchParams({ ...this.filters, before });
    return get(`/api/runs/${encodeURIComponent(this.key)}/decisions?${query}`);
  }

  // Load the newest page; rows fetched earlier stay below it unless `afresh`.
  async load(key, afresh) {
    this.key = key;
    const page = await this.query();
    const last = page.rows.at(-1)?.id ?? 0;
    const kept = afresh ? [] : this.rows.filter((row) => row.id < last);
    this.rows = [...page.rows, ...kept];
    if (!kept.length) this.more.hidden = !page.more;
    this.total = page.total;
    this.draw();
  }

  async older() {
    const page = await this.query(this.rows.at(-1).id);
    this.rows.push(...page.rows);
    this.more.hidden = !page.more;
    this.draw();
  }

  draw() {
    this.counted.textContent = count(this.total, "decision");
    refill(this.body, this.rows.length ? this.rows.map((row) => this.row(row)) : this.empty());
    this.select(this.selected);
  }

  empty() {
    return el("tr", {}, el("td", { colspan: 7, class: "muted" }, "No such decision in this run."));
  }

  row(row) {
    const text = row.marks.map((mark) => mark.text).join("; ") || `keep ${row.policy_before}`;
    const alarms = row.alarms.length ? `⚑ ${row.alarms.join(", ")}` : "";
    const told = row.trigger === "tick" || row.trigger.split(/[, +]+/).every((part) => row.alarms.includes(part));
    const kinds = new Set(row.marks.map((mark) => mark.kind));
    const kind = ["switch", "outside", "refused", "advised"].find((name) => kinds.has(name)) ?? "";
    const href = this.link(row.id);
    const cell = (content, cls) => el("td", { class: cls }, content);
    return el(
      "tr",
      {
        class: `${row.horizon} ${kind}`,
        on: { click: (event) => event.target.closest("a") || (location.hash = href) },
      },
      cell(elapsed(row.since_start_s), "num"),
      el(
        "td",
        { class: "what" },
        el("a", { href, "data-key": `row-${row.id}`, tabindex: "-1", title: visible(text) }, `#${row.id} `, visible(text)),
      ),
      cell(row.horizon),
      cell([told ? "" : `${visible(row.trigger)} `, alarms && el("span", { class: "alarms" }, visible(alarms))]),
      cell(known(row.predicted), "num"),
      cell([known(row.realised), outside(row)], "num"),
      cell(row.faults ? `✕ ${row.faults}` : "", "num faulty"),
    );
  }

  links() {
    return [...this.body.querySelectorAll("a")];
  }

  // Mark the open decision; it, or else the newest, is what the tab key reaches.
  select(key) {
    this.selected = key;
    const links = this.links();
    const open = links.find((link) => link.hash.endsWith(`/decision/${key}`));
    for (const link of links) {
      link.setAttribute("tabindex", "-1");
      link.closest("tr").classList.toggle("current", link === open);
      if (link === open) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    (open ?? links[0])?.setAttribute("tabindex", "0");
  }

  focus(key) {
    this.links().find((link) => link.hash.endsWith(`/decision/${key}`))?.focus();
  }

  // Where the decision `step` rows further down leads; null at the ends.
  neighbour(key, step) {
    const at = this.rows.findIndex((row) => this.link(row.id).endsWith(`/decision/${key}`));
    const row = at < 0 ? null : this.rows[at + step];
    return row ? this.link(row.id) : null;
  }
}

const known = (share) => (share === null ? "" : percent(share));

// Whether the outcome missed the predicted interval; a sign, beside the figure.
function outside(row) {
  if (row.realised === null || row.predicted_low === null) return null;
  if (row.realised < row.predicted_low) return el("span", { class: "off", title: "below the predicted interval" }, " ▼");
  if (row.realised > row.predicted_high) return el("span", { class: "off", title: "above the predicted interval" }, " ▲");
  return null;
}
