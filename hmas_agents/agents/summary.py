"""What does the model see of a long-horizon state?

Facts computed by rules ("flags") rather than raw numbers where that is enough: fewer tokens,
and small models follow them better. Called by `graphs.long_horizon`. Nothing that a tenant
sends or an operator types reaches this text: a name stands in it only where the contract says
something of its own about it and it is plain. All other tenants and SLO classes that are not
built in go by their place in the order of names.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate

from hmas_agents.agents.reply import askable_values
from hmas_agents.states import LongState, OperatorChange, PastProposal
from serving.contracts import SLO, SLO_CLASSES
from serving.policies import POLICIES, format_policy

MAX_GROUPS = 6  # tenants or classes named: the worst ones
MAX_LETTERS = 140  # of what a line lists of the contract, of words or of proposals
PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,20}")
Names = Mapping[str, str]

CAUSES = {
    "ttft_queue": "waiting in the queue",
    "ttft_execution": "slow prefill",
    "tpot": "slow decoding",
    "itl": "stalls between tokens",
    "e2e": "total time",
    "not_served": "not served",
}
ALARMS = {
    "rate_up": "arrivals jumped up",
    "rate_down": "arrivals dropped",
    "lengths": "request lengths changed",
    "mix": "the mix of tenants changed",
}


def summarise(state: LongState) -> str:
    """One line per flag; under 600 tokens for any state."""
    lines = [
        f"Load: {_load(state.load)}, {_trend(state)}.",
        f"Arrivals: {_burstiness(state.dispersion)}.",
        f"Prompts: {_prompts(state)}.",
        f"Goodput: {_share(state.attainment)}.",
        f"Queue: {_queue(state)}.",
    ]
    if state.misses:
        cause = max(sorted(state.misses), key=lambda name: state.misses[name])
        if state.misses[cause] > 0:
            lines.append(f"Main cause of misses: {CAUSES.get(cause, 'other')}.")
    tenants, classes = _tenant_names(state), _class_names(state)
    by_class, by_tenant = state.attainment_by_class, state.attainment_by_tenant
    lines += _groups("Classes", {classes[name]: share for name, share in by_class.items()})
    lines += _groups("Tenants", {tenants[name]: share for name, share in by_tenant.items()})
    changes = [ALARMS[name] for name in state.alarms if name in ALARMS]
    lines.append(f"Changes: {', '.join(changes) or 'none'}.")
    lines += _listed("Contract", list(_terms(state, tenants, classes)))
    told = [_told(each, state.now_s, tenants, classes) for each in reversed(state.told)]
    lines += _listed("Told by operators", told)
    lines += _listed("Proposed before", [_proposed(each) for each in state.proposed])
    return "\n".join(lines)


def policy_cards(names: tuple[str, ...]) -> str:
    """One line per policy from the registry: when it helps and when it hurts."""
    cards = {name: POLICIES[name].card for name in names}
    lines = (f"- {name}: good for {c.helps}; bad for {c.hurts}" for name, c in cards.items())
    return "\n".join(lines)


def parameter_bounds(names: tuple[str, ...]) -> str:
    """One line per policy that has parameters: the values that the model may choose from."""
    lines = [
        f"- {name}: " + "; ".join(
            f"{key} one of {', '.join(f'{value:g}' for value in values)} "
            f"(default {POLICIES[name].default_params[key]:g})"
            for key, values in askable_values(name).items()
        )
        for name in names
        if askable_values(name)
    ]  # fmt: skip
    return "\n".join(lines) or "- none"


def _load(load: float | None) -> str:
    if load is None:
        return "unknown"
    for below, word in ((0.6, "light"), (0.9, "calm"), (1.05, "at saturation"), (1.5, "overload")):
        if load < below:
            return word
    return "heavy overload"


def _trend(state: LongState) -> str:
    if state.rate_rps <= 0:
        return "idle"
    trend = state.rate_trend
    return "rising" if trend > 0.3 else "falling" if trend < -0.3 else "steady"


def _burstiness(dispersion: Mapping[str, float]) -> str:
    worst = max(dispersion.values(), default=1.0)
    return "smooth" if worst < 2 else "bursty" if worst < 6 else "very bursty"


def _prompts(state: LongState) -> str:
    if not state.prompt_p50 or state.prompt_p90 is None:
        return "unknown"
    spread = "mixed lengths" if state.prompt_p90 > 3 * state.prompt_p50 else "similar lengths"
    return f"{spread}, {'long' if state.prompt_p50 > 1500 else 'short'}"


def _share(share: float | None) -> str:
    if share is None:
        return "unknown"
    for above, word in ((0.98, "nearly all"), (0.9, "most"), (0.6, "many"), (0.3, "few")):
        if share >= above:
            return f"{word} requests meet their targets"
    return "almost no requests meet their targets"


def _queue(state: LongState) -> str:
    if state.waiting == 0:
        return "empty"
    return "short" if state.queued_prefill_s < 1 else "long"


def _tenant_names(state: LongState) -> Names:
    told = {each.tenant for each in state.told if each.tenant is not None}
    return _names("t", state.attainment_by_tenant, {*state.weights, *state.floors, *told})


def _class_names(state: LongState) -> Names:
    told = {each.slo_class for each in state.told if each.slo_class is not None}
    built_in, listed = set(SLO_CLASSES), {*state.targets, *state.class_weights, *told}
    own = _names("class", set(state.attainment_by_class) - built_in, listed - built_in)
    return {name: name for name in built_in} | own


def _names(index: str, seen: Collection[str], listed: Collection[str]) -> dict[str, str]:
    """What each name of requests (`seen`) and of the contract (`listed`) is called."""
    return {
        name: name if name in listed and PLAIN.fullmatch(name) else f"{index}{i}"
        for i, name in enumerate(sorted({*seen, *listed}))
    }


def _terms(state: LongState, tenants: Names, classes: Names) -> Iterator[str]:
    """What the contract says that is not the default: tenants, then classes, heavy ones first."""
    floors = {name: f"floor {floor:.0%}" for name, floor in state.floors.items()}
    targets = {name: _targets(slo) for name, slo in state.targets.items()}
    for called, weights, others in (
        (tenants, state.weights, floors),
        (classes, state.class_weights, targets),
    ):
        for name in sorted({*weights, *others}, key=lambda n: (-weights.get(n, 1.0), n)):
            parts = [f"weight {weights[name]:.3g}"] if name in weights else []
            parts += [others[name]] if name in others else []
            yield f"{called[name]} {', '.join(parts)}"


def _targets(slo: SLO) -> str:
    parts = (("TTFT", slo.ttft_ms), ("TPOT", slo.tpot_ms), ("total", slo.e2e_ms),
             ("gaps", slo.itl_ms))  # fmt: skip
    return ", ".join(f"{n} {ms / 1e3:g} s" for n, ms in parts if ms is not None) or "no targets"


def _told(change: OperatorChange, now_s: float, tenants: Names, classes: Names) -> str:
    """The change, and when it begins and ends."""
    whose = [tenants[change.tenant]] if change.tenant is not None else []
    whose += [classes[change.slo_class]] if change.slo_class is not None else []
    what = {
        "weight": f"weight {change.amount:g}",
        "floor": f"floor {change.amount:.0%}",
        "slo_scale": f"targets {change.amount:g}x",
        "shed": f"shed {change.amount:.0%}",
        "expect": f"expect {change.amount:g}x requests",
    }[change.kind]
    begins_s = max(change.from_s, now_s)
    when = "" if begins_s == now_s else f" in {_minutes(begins_s - now_s)}"
    until_s = change.until_s
    end = " without end" if until_s is None else f" for {_minutes(until_s - begins_s)}"
    return f"{' '.join(whose) or 'all'} {what}{when}{end}"


def _proposed(past: PastProposal) -> str:
    """The setting, what became of it, and what it gained."""
    gains = (("predicted", past.predicted_gain), ("seen", past.seen_gain))
    known = [f"{how} {100 * gain:+.1f}" for how, gain in gains if gain is not None]
    setting = f"{format_policy(past.policy, past.params)} {past.outcome}"
    return ", ".join([setting, *known]) + " points" * bool(known)


def _minutes(length_s: float) -> str:
    return f"{max(1, round(length_s / 60))} min"


def _listed(title: str, entries: Sequence[str]) -> list[str]:
    """One line, of as many entries as fit and the number of the others; none without any."""
    if not entries:
        return []
    ends = accumulate(len(entry) + len("; ") for entry in entries)
    kept = [entry for entry, end in zip(entries, ends, strict=True) if end <= MAX_LETTERS]
    more = [f"{len(entries) - len(kept)} more"] if len(kept) < len(entries) else []
    return [f"{title}: {'; '.join([*kept, *more])}."]


def _groups(title: str, shares: Mapping[str, float]) -> list[str]:
    """The worst groups below 90% attainment, worst first; no line when there is none."""
    low = sorted((share, name) for name, share in shares.items() if share < 0.9)
    if not low:
        return []
    words = (f"{name} {'badly' if share < 0.5 else 'partly'}" for share, name in low[:MAX_GROUPS])
    return [f"{title} missing targets: {', '.join(words)}."]
