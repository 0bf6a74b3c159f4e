"""How does the explanation of one request read? Called by `hmas why`."""

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.text import Text

from hmas_agents.commands.why_twin import answer_lines, replay_table
from hmas_agents.explain.company import Crowd
from hmas_agents.explain.explanation import Explanation
from hmas_agents.explain.life import BAR_COLUMNS, CAUSES, SERVED, Target, bar, due_column
from hmas_agents.explain.phases import Phase
from hmas_agents.forms import clock, decision_text, limit_changes, seconds
from serving.contracts import Limits, encode
from serving.policies import format_policy

TIME_FORM = "%Y-%m-%d %H:%M:%S.%f"
SHOWN_TENANTS = 4


def tell(told: Explanation, console: Console) -> None:
    """Print the explanation. Whatever a tenant may have written is printed as it is."""
    outcome = told.outcome
    label = f", {told.run_label}" if told.run_label else ""
    mode = f", {told.mode} mode" if told.mode else ""
    _title(console, f"Request {outcome.request_id} (run {told.run_id}{label}{mode})")
    _lines(console, _verdict(told))
    _title(console, "Its timeline")
    _lines(console, _timeline(told))
    _title(console, "What was in force")
    _lines(console, _lived_under(told))
    if told.decisions:
        _title(console, "What was decided meanwhile (hmas trace show ID tells more)")
        _lines(console, _decisions(told))
    _title(console, "What it waited for")
    _lines(console, _waited_for(told))
    if told.twin is not None:
        _title(console, "Would another policy have met its SLO?")
        console.print(replay_table(told.twin, outcome))
        _lines(console, answer_lines(told.twin))
    for note in told.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _verdict(told: Explanation) -> Iterator[str]:
    o = told.outcome
    yield (
        f"{o.tenant}, {o.slo_class}: prompt {o.prompt_tokens} tokens, "
        f"answer {o.output_tokens} tokens, {o.finish}"
    )
    missed = [target for target in told.targets if not target.met and o.miss]
    if o.withdrawn:
        yield "neither met nor missed its SLO: its client left before anything was due"
    elif o.met and o.finish not in SERVED:
        yield "MET its SLO, as far as it was due when its client left"
    elif o.met:
        yield "MET its SLO" if told.targets else "it was served, and had no SLO to miss"
    elif o.finish not in SERVED:
        yield f"MISSED its SLO: {o.finish} {seconds(o.e2e_s)} after it came"
    for target in missed:
        if target.real_s is None:
            yield f"MISSED: {target.name} never came, promised within {seconds(target.target_s)}"
        else:
            yield (
                f"MISSED: {target.name} {seconds(target.real_s)}, promised within "
                f"{seconds(target.target_s)}: {seconds(target.over_s)} too late "
                f"({target.real_s / target.target_s:.1f} times the target)"
            )
    if o.miss:
        yield f"the engine counts it as {o.miss}: {CAUSES[o.miss]}"


def _timeline(told: Explanation) -> Iterator[str]:
    o = told.outcome
    if line := bar(o):
        yield line
        due = due_column(o)
        if due is not None:
            yield " " * due + "^ first token due"
        scale = seconds(o.e2e_s / BAR_COLUMNS)
        yield f"one character is {scale}: . waiting  = prefill  # answering"
    by_name: dict[str, Target] = {target.name: target for target in told.targets}
    for moment in told.moments:
        target = by_name.get("end" if moment.name == "ended" else moment.name)
        time = clock(moment.at_s, TIME_FORM)
        told_target = f"  {moment.why}" if target is None else _against(target)
        yield f"{time}  {moment.name:<11}  +{seconds(moment.after_s):>11}{told_target}".rstrip()
    if o.tpot_s is not None:
        each = by_name.get("per token")
        gap = " " * len(clock(o.arrival_s, TIME_FORM))
        yield f"{gap}  {'per token':<11}   {seconds(o.tpot_s):>11}{_against(each) if each else ''}"
    if o.slo.itl_ms is not None:
        late, longest = o.late_gaps, seconds(o.slo.itl_ms / 1e3)
        yield f"{late} of {max(0, o.output_tokens - 1)} gaps between tokens were above {longest}"
    if o.preemptions:
        yield f"preempted {o.preemptions} times: its prompt and answer so far were computed again"


def _against(target: Target) -> str:
    if target.real_s is None:
        return f"  promised {seconds(target.target_s)}: NEVER CAME"
    over_s = target.real_s - target.target_s
    how = f"{seconds(-over_s)} to spare" if target.met else f"MISSED by {seconds(over_s)}"
    return f"  promised {seconds(target.target_s)}: {how}"


def _lived_under(told: Explanation) -> Iterator[str]:
    came_s = told.outcome.arrival_s
    previous: Phase | None = None
    for phase in told.lived_under:
        if phase.since_s <= came_s or (previous is None and phase.decision_id is None):
            since = "since before it came"
        else:
            since = f"+{phase.since_s - came_s:.1f} s"
        by = "" if phase.decision_id is None else f", by decision {phase.decision_id}"
        policy = format_policy(phase.policy, phase.params)
        yield f"epoch {phase.epoch}, {since}{by}: {policy}"
        if previous is None:
            yield f"  limits: {_limits(phase.limits)}"
        else:
            for change in limit_changes(encode(previous.limits), encode(phase.limits)):
                yield f"  limits: {change}"
        previous = phase
    o = told.outcome
    if previous is None:
        yield "the ledger holds no decision near it"
    if o.queue_s is not None:
        yield f"admitted under {o.policy or 'an unknown policy'}, epoch {o.epoch}"


def _limits(limits: Limits) -> str:
    """The two that always hold, and what differs from stock: rules and other limits."""
    stock = Limits(limits.max_active_requests, limits.token_budget)
    always = f"{limits.max_active_requests} requests at once, {limits.token_budget} tokens per step"
    return ", ".join([always, *limit_changes(encode(stock), encode(limits))])


def _decisions(told: Explanation) -> Iterator[str]:
    for stored in told.decisions:
        record = stored.record
        would = "" if record.mode == "act" else "would: "
        after_s = record.at_s - told.outcome.arrival_s
        yield f"{stored.id:>6}  +{after_s:.1f} s  {record.horizon}  {would}{decision_text(record)}"


def _waited_for(told: Explanation) -> Iterator[str]:
    o, company = told.outcome, told.company
    if o.queue_s is None:
        yield f"it waited {seconds(o.e2e_s)} and was never admitted"
    else:
        yield f"it waited {seconds(o.queue_s)} in the queue"
    before = "before it" if o.queue_s is not None else "before it left"
    yield from _crowd("in the batch when it came", company.running)
    yield from _crowd(f"ahead of it, admitted {before}", company.ahead)
    yield from _crowd(f"overtook it (came later, admitted {before})", company.overtaken_by)
    yield from _crowd("it overtook (came earlier, still waiting then)", company.overtook)


def _crowd(who: str, crowd: Crowd) -> Iterator[str]:
    if not crowd.requests:
        yield f"{who}: none"
        return
    shown = list(crowd.by_tenant.items())
    tenants = ", ".join(f"{tenant} {count}" for tenant, count in shown[:SHOWN_TENANTS])
    rest = sum(count for _, count in shown[SHOWN_TENANTS:])
    tenants += f", others {rest}" if rest else ""
    yield f"{who}: {crowd.requests} requests, {crowd.prompt_tokens} prompt tokens ({tenants})"
    first = "first: " if crowd.requests > len(crowd.ids) else ""
    yield f"    {first}{', '.join(crowd.ids)}"


def _title(console: Console, text: str) -> None:
    console.print(Text(text, style="bold"), highlight=False, soft_wrap=True)


def _lines(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(Text(f"  {line}"), highlight=False, soft_wrap=True)
