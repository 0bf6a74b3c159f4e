// Was this decision right, what was done, and why? What came of it first, then what led to it.

import { block, el, name, svg, visible } from "./dom.js";
import { clock, count, elapsed, number, percent, short } from "./format.js";

export function drawDecision(decision, timeline, { close, previous, next }) {
  const d = decision;
  return [
    el(
      "header",
      { class: "bar" },
      el("h2", {}, `Decision ${d.id}`),
      el("span", { class: "tag" }, `${d.horizon} horizon`),
      el("span", { class: "tag" }, name(d.trigger)),
      el("span", { class: "tag" }, name(d.mode)),
      el("span", { class: "end" }, step("‹ older", previous), step("newer ›", next)),
      el("button", { type: "button", on: { click: close } }, "Close (Esc)"),
    ),
    el("p", { class: "muted" }, `${elapsed(d.at_s - timeline.start_s)} into the run · ${clock(d.at_s)} · epoch ${d.epoch_before} → ${d.epoch_after}`),
    section("Prediction against outcome", judged(d)),
    section("Chosen", chosen(d)),
    d.faults.length > 0 && section("Went wrong", el("ul", { class: "faults" }, d.faults.map((fault) => el("li", {}, name(fault))))),
    d.proposals.length > 0 && section("Proposed, and how each was judged", proposals(d)),
    d.tool_calls.map((call) => section(`Tool call: ${visible(call.tool)}`, toolCall(call))),
    d.summary && section("Seen: the summary, as told to the model", block(d.summary, "Summary")),
    (d.prompt_name || d.raw_replies.length > 0) && section("Asked and answered", asked(d)),
    section("State of the system", fold(count(Object.keys(d.state).length, "figure"), pairs(Object.entries(d.state)))),
    d.engine.length > 0 && section("Engine, before and after", fold(count(d.engine.length, "change"), changes(d.engine))),
  ]
    .flat()
    .filter(Boolean);
}

const step = (text, href) => (href ? el("a", { href, class: "step" }, text) : el("span", { class: "step muted" }, text));
const section = (title, ...content) => el("section", {}, el("h3", {}, title), content);
const fold = (title, content) => el("details", {}, el("summary", {}, title), content);

function judged(d) {
  return [el("p", { class: "verdict" }, d.verdict), scale(d), reach(d)];
}

function reach(d) {
  const parts = [];
  if (d.realised_requests !== null) parts.push(`${count(d.realised_requests, "request")} in the window after it`);
  const { horizon_s, candidates, forecasts, wall_s } = d.twin;
  if (forecasts) parts.push(`the twin tried ${count(candidates, "setting")} in ${count(forecasts, "forecast")} of ${number(horizon_s)} s, in ${number(wall_s, 2)} s`);
  return parts.length > 0 && el("p", { class: "muted" }, parts.join(" · "));
}

// 0 to 100%: a bar for the predicted interval, a line for the prediction, a ring for what came.
function scale(d) {
  if (d.predicted === null && d.realised === null) return null;
  const x = (share) => 8 + 384 * share;
  return svg(
    "svg",
    { class: "scale", viewBox: "0 0 400 34", role: "img", "aria-label": d.verdict },
    svg("line", { class: "rule", x1: x(0), x2: x(1), y1: 12, y2: 12 }),
    [0, 0.25, 0.5, 0.75, 1].map((v) =>
      svg("text", { x: x(v), y: 31, "text-anchor": v === 0 ? "start" : v === 1 ? "end" : "middle" }, `${100 * v}%`),
    ),
    d.predicted_low !== null && d.predicted_high !== null &&
      svg("rect", { class: "interval", x: x(d.predicted_low), y: 7, width: Math.max(2, x(d.predicted_high) - x(d.predicted_low)), height: 10 }),
    d.predicted !== null && svg("line", { class: "predicted", x1: x(d.predicted), x2: x(d.predicted), y1: 3, y2: 21 }),
    d.realised !== null && svg("circle", { class: "realised", cx: x(d.realised), cy: 12, r: 5 }),
  );
}

function chosen(d) {
  const { policy, source, ack, applied } = d.chosen;
  const kept = policy === d.policy_before ? "kept" : applied === false ? `instead of ${d.policy_before}, not applied` : `instead of ${d.policy_before}`;
  return [
    policy && el("p", {}, el("b", {}, name(d.chosen_text)), ` (${visible(kept)}${source ? `, from ${visible(source)}` : ""})`),
    el("p", {}, el("span", { class: "muted" }, "because "), name(d.reason || "–")),
    ack && acknowledged(ack),
  ];
}

function acknowledged(ack) {
  const { accepted, epoch, reason, clamped } = ack;
  const limits = Object.keys(clamped ?? {}).length ? ` · clamped ${short(clamped)}` : "";
  return el("p", {}, el("span", { class: accepted ? "good" : "bad" }, accepted ? "✓ acknowledged" : "✕ not accepted"), ` by the engine, epoch ${short(epoch)}`, visible(`${limits}${reason ? ` · ${reason}` : ""}`));
}

function proposals(d) {
  const titles = [["from"], ["policy"], ["twin predicts", "num"], ["guardrails and lead"], ["confidence", "num"]];
  const rows = d.proposals.map((p) => {
    const interval = p.interval.length === 2 ? ` (${percent(p.interval[0])}–${percent(p.interval[1])})` : "";
    const taken = p.policy === d.chosen.policy && p.source === d.chosen.source;
    return el(
      "tr",
      { class: taken ? "current" : "" },
      [
        [taken ? "▸ " : "", name(p.source)],
        [name(p.text), el("small", { class: "why" }, name(p.reason))],
        [percent(p.predicted), el("small", {}, interval)],
        [name(p.verdict), el("small", { class: "why" }, name(p.judgement))],
        [p.confidence === null ? "–" : number(p.confidence, 2)],
      ].map((content, i) => el("td", { class: titles[i][1], "data-title": titles[i][0] }, content)),
    );
  });
  return el("div", { class: "scroll" }, el("table", { class: "plain cards" }, el("thead", {}, el("tr", {}, titles.map(([text, cls]) => el("th", { scope: "col", class: cls }, text)))), el("tbody", {}, rows)));
}

function toolCall(call) {
  return [
    pairs(Object.entries(call.args)),
    el("p", {}, el("span", { class: call.accepted ? "good" : "bad" }, call.accepted ? "✓ accepted" : "✕ refused"), call.reason ? visible(`: ${call.reason}`) : ""),
    call.changes.length ? changes(call.changes) : el("p", { class: "muted" }, "Nothing in force changed."),
    Object.keys(call.ack).length > 0 && acknowledged(call.ack),
  ];
}

function asked(d) {
  const version = d.prompt_version === null ? null : `${d.prompt_name} v${d.prompt_version}`;
  const facts = [
    ["prompt", version ? el("a", { href: `#/prompts/${encodeURIComponent(d.prompt_name)}/${d.prompt_version}` }, visible(version)) : "–"],
    ["sha256", el("code", {}, visible(d.prompt_sha256.slice(0, 16) || "–"))],
    ["model", name(d.model || "–")],
    ["latency", d.model_latency_s === null ? "–" : `${number(d.model_latency_s, 3)} s`],
    ["tokens", d.model_tokens === null ? "–" : `${number(d.model_tokens)}${d.model_prompt_tokens === null ? "" : `, ${number(d.model_prompt_tokens)} of the prompt`}`],
    d.model_step_share !== null && ["share of step time", percent(d.model_step_share)],
  ].filter(Boolean);
  return [
    el("dl", { class: "facts" }, facts.map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, value)))),
    d.messages.length
      ? d.messages.map((m) => [el("h4", {}, `Prompt as sent: ${visible(m.role)}`), block(m.content, `Prompt, ${m.role}`)])
      : d.prompt_name && el("p", { class: "muted" }, "The prompt's text was not recorded with this decision; its version is linked above."),
    d.raw_replies.length
      ? d.raw_replies.map((reply, i) => [el("h4", {}, d.raw_replies.length > 1 ? `Raw reply ${i + 1}` : "Raw reply"), block(reply, `Raw reply ${i + 1}`)])
      : el("p", { class: "muted" }, "No reply came."),
  ];
}

function pairs(entries) {
  return el("table", { class: "plain pairs" }, el("tbody", {}, entries.map(([key, value]) => el("tr", {}, el("th", { scope: "row" }, name(key)), el("td", {}, name(short(value)))))));
}

function changes(list) {
  return el(
    "table",
    { class: "plain pairs" },
    el("tbody", {}, list.map((c) => el("tr", {}, el("th", { scope: "row" }, name(c.key)), el("td", {}, name(short(c.before)), " → ", el("b", {}, name(short(c.after))))))),
  );
}
