"""What does the model see of a long-horizon state?

Facts computed by rules ("flags") rather than raw numbers: fewer tokens, and small
models follow them better. Called by `graphs.long_horizon`. Nothing a tenant sends
reaches this text: tenants are indexed by name order, and SLO classes that are not
built in likewise.
"""

from collections.abc import Mapping

from hmas_agents.agents.reply import askable_values
from hmas_agents.states import LongState
from serving.contracts import SLO_CLASSES
from serving.policies import POLICIES

MAX_GROUPS = 6  # tenants or classes named: the worst ones

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
    classes = {_class_name(name, state): v for name, v in state.attainment_by_class.items()}
    lines += _groups("Classes", classes)
    tenants = {f"t{i}": state.attainment_by_tenant[name] for i, name in _indexed(state)}
    lines += _groups("Tenants", tenants)
    changes = [ALARMS[name] for name in state.alarms if name in ALARMS]
    lines.append(f"Changes: {', '.join(changes) or 'none'}.")
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


def _indexed(state: LongState) -> list[tuple[int, str]]:
    return list(enumerate(sorted(state.attainment_by_tenant)))


def _class_name(name: str, state: LongState) -> str:
    if name in SLO_CLASSES:
        return name
    own = sorted(set(state.attainment_by_class) - set(SLO_CLASSES))
    return f"class{own.index(name)}"


def _groups(title: str, shares: Mapping[str, float]) -> list[str]:
    """The worst groups below 90% attainment, worst first; no line when there is none."""
    low = sorted((share, name) for name, share in shares.items() if share < 0.9)
    if not low:
        return []
    words = (f"{name} {'badly' if share < 0.5 else 'partly'}" for share, name in low[:MAX_GROUPS])
    return [f"{title} missing targets: {', '.join(words)}."]
