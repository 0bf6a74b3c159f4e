// When did the policy, a limit, an alarm or what operators told change? Rows under the charts.

import { MARGIN } from "./axes.js";
import { el, rove, svg, visible } from "./dom.js";
import { count, elapsed } from "./format.js";
import { explain } from "./tip.js";

const ROW = 20;
const KINDS = {
  switch: "policy switch",
  params: "change of a policy's parameters",
  outside: "change from outside",
  advised: "advice",
  refused: "refused",
  limits: "limit change",
};
// Shapes around 0,0: colour is never the only sign.
const SHAPES = {
  switch: "M0 -6L6 5L-6 5Z",
  params: "M0 -5L5 4L-5 4Z",
  outside: "M0 6L6 -5L-6 -5Z",
  advised: "M5 0A5 5 0 1 1 -5 0A5 5 0 1 1 5 0Z",
  refused: "M-4 -4L4 4M4 -4L-4 4",
  limits: "M0 -5L5 0L0 5L-5 0Z",
};

export function drawLanes(line, x, top, link) {
  let y = top;
  const rows = [];
  const add = (title, ...content) => {
    rows.push(svg("g", { class: "lane" }, svg("text", { x: 0, y: y + 4 }, title), content));
    y += ROW;
  };
  if (line.policies.length) add("policy", ribbon(line, x, y));
  const changes = line.marks.filter((mark) => mark.kind !== "limits");
  const limits = line.marks.filter((mark) => mark.kind === "limits");
  if (changes.length) add("switches", marks("switches", changes, x, y, link));
  if (limits.length) add("limits", marks("limits", limits, x, y, link));
  for (const name of new Set(line.alarms.map((alarm) => alarm.name))) {
    const bars = line.alarms.filter((alarm) => alarm.name === name).map((a) => alarmBar(a, x, y, link));
    add(visible(name), keys(svg("g", { role: "group", "aria-label": "drift alarms" }, bars)));
  }
  for (const spans of apart(line.words)) {
    const bars = spans.map((span) => wordsBar(span, x, y, link));
    add("words", keys(svg("g", { role: "group", "aria-label": "told in words" }, bars)));
  }
  return { node: svg("g", {}, rows), bottom: y };
}

// Faint lines through the charts where the policy changed.
export function guides(line, x, spans) {
  const switches = line.marks.filter((mark) => ["switch", "outside"].includes(mark.kind));
  return svg(
    "g",
    { class: "guides", "aria-hidden": "true" },
    switches.flatMap((mark) =>
      spans.map(([y1, y2]) => svg("line", { x1: x(mark.at_s), x2: x(mark.at_s), y1, y2 })),
    ),
  );
}

function ribbon(line, x, y) {
  const spans = line.policies.map((span, i) => {
    const [left, right] = [x(span.from_s), x(span.to_s)];
    const room = Math.floor((right - left - 8) / 6.4);
    const epochs =
      span.first_epoch === span.last_epoch
        ? `epoch ${span.first_epoch}`
        : `epochs ${span.first_epoch}–${span.last_epoch}`;
    const texts = [`${span.policy} · ${epochs}`, span.policy].map(visible);
    const text = texts.find((t) => t.length <= room);
    const node = svg(
      "g",
      { class: `policy p${i % 2}` },
      svg("rect", { x: left, y: y - 8, width: Math.max(1, right - left), height: 16 }),
      text && svg("text", { x: left + 5, y: y + 4 }, text),
    );
    return explain(node, () => [
      el("strong", {}, visible(span.policy)), epochs, `${elapsed(span.from_s)} to ${elapsed(span.to_s)}`,
    ]);
  });
  const ticks = line.epochs.length < x.width / 6 // else they would fill the ribbon
    ? line.epochs.map((e) => svg("line", { class: "epoch", x1: x(e.at_s), x2: x(e.at_s), y1: y + 4, y2: y + 8 }))
    : [];
  return [spans, ticks];
}

function marks(title, list, x, y, link) {
  const nodes = list.map((mark) => {
    const rollback = mark.trigger === "rollback" ? ["after a rollback"] : [];
    const many = mark.texts.length > 1 ? [count(mark.texts.length, "change")] : [];
    const head = [`${KINDS[mark.kind]} at ${elapsed(mark.at_s)}`, ...rollback, ...many].join(", ");
    const node = svg(
      "a",
      {
        class: `mark ${mark.kind}`, href: link(mark.decision), "data-key": `${mark.kind}-${mark.decision}`,
        transform: `translate(${x(mark.at_s)} ${y})`, tabindex: "-1",
        "aria-label": visible(`${head}: ${mark.texts.join("; ")}`),
      },
      svg("rect", { class: "hit", x: -8, y: -10, width: 16, height: 20 }),
      svg("path", { d: SHAPES[mark.kind] }),
    );
    const texts = mark.texts.slice(0, 6).map(visible);
    if (mark.texts.length > 6) texts.push(`and ${mark.texts.length - 6} more`);
    return explain(node, () => [el("strong", {}, head), ...texts, el("small", {}, `decision ${mark.decision}: Enter opens it`)]);
  });
  return keys(svg("g", { role: "group", "aria-label": title }, nodes));
}

function alarmBar(alarm, x, y, link) {
  const [left, right] = [x(alarm.from_s), x(alarm.to_s)];
  const text = `drift alarm ${alarm.name}, ${elapsed(alarm.from_s)} to ${elapsed(alarm.to_s)}`;
  const node = svg(
    "a",
    { class: "mark alarm", href: link(alarm.decision), "data-key": `${alarm.name}-${alarm.decision}`, "aria-label": visible(text), tabindex: "-1" },
    svg("rect", { x: left, y: y - 5, width: Math.max(4, right - left), height: 10, rx: 2 }),
  );
  return explain(node, () => [el("strong", {}, visible(text)), el("small", {}, `first seen by decision ${alarm.decision}`)]);
}

// Spans in as few rows as keep those of one row from overlapping.
function apart(spans) {
  const rows = [];
  for (const span of spans) {
    const free = rows.find((row) => row.at(-1).to_s <= span.from_s);
    free ? free.push(span) : rows.push([span]);
  }
  return rows;
}

function wordsBar(span, x, y, link) {
  const [left, right] = [x(span.from_s), x(span.to_s)];
  const when = `in force ${elapsed(span.from_s)} to ${elapsed(span.to_s)}`;
  const said = [span.text, span.change].filter(Boolean).map(visible);
  const fits = said[0].length <= Math.floor((right - left - 8) / 6.4);
  const node = svg(
    "a",
    {
      class: "mark words", href: link(span.decision), "data-key": `words-${span.decision}-${span.change}`, tabindex: "-1",
      "aria-label": `told ${span.told}: ${said.join(", ")}, ${when}`,
    },
    svg("rect", { x: left, y: y - 8, width: Math.max(4, right - left), height: 16, rx: 2 }),
    fits && svg("text", { x: left + 5, y: y + 4 }, said[0]),
  );
  return explain(node, () => [
    el("strong", {}, `told ${span.told}`), ...said, when,
    el("small", {}, `begun by decision ${span.decision}: Enter opens it`),
  ]);
}

// One stop of the tab key for a row; left and right move along it.
function keys(group) {
  const items = [...group.children];
  items[0]?.setAttribute("tabindex", "0");
  group.addEventListener("keydown", (event) => rove(event, items, ["ArrowLeft", "ArrowRight"]));
  return group;
}
