"""What do the last minutes look like? Called by `Feedback.long_state`."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from hmas_agents.feedback.drift import dispersion
from hmas_agents.feedback.short_state import finite, finite_or_none
from hmas_agents.feedback.windows import Offered
from hmas_agents.states import LongState
from serving.contracts import Outcome, Snapshot
from serving.contracts.state import full_batch
from serving.engines.ranks import rank_count

DISPERSION_BINS_S = (1, 10, 60)


def build_long_state(
    snapshot: Snapshot,
    *,
    window_s: float,
    offered: Sequence[Offered],
    outcomes: Sequence[Outcome],
    weights: Sequence[float],
    arrivals_s: Sequence[float],
    observed_since_s: float,
    alarms: tuple[str, ...],
    psi_lengths: float,
    psi_mix: float,
    own: Collection[str] = (),
) -> LongState:
    """The long state.

    Args:
        snapshot: the engine now.
        window_s: length of the window, less while the controller is younger.
        offered: requests that arrived within the window, oldest first.
        outcomes: requests that left within the window.
        weights: for each of `offered`, how much of it is a miss although still inside.
        arrivals_s: every arrival time retained, for the index of dispersion.
        observed_since_s: start of what is retained.
        alarms: names of the alarms in force.
        psi_lengths: shift of prompt lengths of the newest quarter against the rest.
        psi_mix: the same of tenants and SLO classes.
        own: tenants of the controller's own requests: part of the load, and told apart.

    Attainment is over requests that *arrived* in the window, so that a growing queue is
    not hidden behind the few that were served; goodput and causes of misses are over
    requests that left in it. `rate_trend` is the rate of the newer half minus that of the
    older, over half a window: rps per second. `dispersion` maps "1s", "10s" and "60s" to
    the index where known. `psi_lengths` is of prompt lengths: outputs are known in the order
    in which requests finish, short ones first, and would shift with every change of load.
    """
    now_s = snapshot.now_s
    # Under a second, single arrivals would read as enormous rates.
    span_s = max(1.0, window_s)
    load = offered_load(snapshot, len(offered) / span_s, offered, outcomes)
    everyone = list(zip(offered, weights, strict=True))
    pairs = [(o, weight) for o, weight in everyone if o.tenant not in own]
    ours = [(o, weight) for o, weight in everyone if o.tenant in own]
    offered = [o for o, _ in pairs]
    outcomes = [outcome for outcome in outcomes if outcome.tenant not in own]
    rate_rps = len(offered) / span_s
    newer = sum(o.arrival_s >= now_s - window_s / 2 for o in offered)
    indices = {
        f"{bin_s}s": dispersion(arrivals_s, observed_since_s, now_s, bin_s)
        for bin_s in DISPERSION_BINS_S
    }
    misses = Counter(o.miss for o in outcomes if o.miss)
    outputs = [o.output_tokens for o in outcomes]
    return LongState(
        now_s=now_s,
        window_s=window_s,
        policy=snapshot.policy,
        params=dict(snapshot.params),
        epoch=snapshot.epoch,
        arrivals=len(offered),
        rate_rps=rate_rps,
        rate_trend=(2 * newer - len(offered)) / (span_s / 2) ** 2,
        load=load,
        dispersion={name: value for name, value in indices.items() if math.isfinite(value)},
        prompt_p50=quantile([o.prompt_tokens for o in offered], 0.5),
        prompt_p90=quantile([o.prompt_tokens for o in offered], 0.9),
        output_p50=quantile(outputs, 0.5),
        output_p90=quantile(outputs, 0.9),
        psi_lengths=psi_lengths,
        psi_mix=psi_mix,
        alarms=alarms,
        goodput_rps=sum(o.met for o in outcomes) / span_s if outcomes else None,
        attainment=_attainment(pairs),
        attainment_by_class=_grouped((o.slo_class, o, weight) for o, weight in pairs),
        attainment_by_tenant=_grouped((o.tenant, o, weight) for o, weight in pairs),
        misses={cause: n / len(outcomes) for cause, n in sorted(misses.items())},
        length_coverage=finite_or_none(snapshot.length_coverage),
        e2e_p95_s=quantile([o.e2e_s for o in outcomes], 0.95),
        waiting=snapshot.queue.waiting,
        queued_prefill_s=finite(snapshot.queue.queued_prefill_s),
        own_arrivals=len(ours),
        own_attainment=_attainment(ours),
    )


def offered_load(
    snapshot: Snapshot, rate_rps: float, offered: Sequence[Offered], outcomes: Sequence[Outcome]
) -> float | None:
    """Arrival rate times the mean seconds of engine time one request takes when it is full.

    Of the mean request, as `CostCoefficients.request_s` prices it. Output is the mean of the
    requests that left, so None until one has, or while the cost model is unusable.
    Data-parallel ranks, of which the snapshot's envelope describes one, share the rate.
    """
    served = [o.output_tokens for o in outcomes if o.output_tokens > 0]
    if not offered or not served:
        return None
    prompt = sum(o.prompt_tokens for o in offered) / len(offered)
    cached = sum(o.cached_tokens for o in offered) / len(offered)
    output = sum(served) / len(served)
    envelope = snapshot.envelope
    batch = full_batch(
        envelope.max_active_requests, envelope.kv_blocks * envelope.block_size, prompt + output
    )
    prefill_s, answer_s = snapshot.cost.request_s(prompt, cached, output, batch)
    load = rate_rps / rank_count(snapshot) * (prefill_s + answer_s)
    return load if math.isfinite(load) and load > 0 else None


def quantile(values: Iterable[float], q: float) -> float | None:
    """The q-quantile by nearest rank, of the finite values; None without any."""
    ordered = sorted(v for v in values if math.isfinite(v))
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else None


def _attainment(pairs: Sequence[tuple[Offered, float]]) -> float | None:
    """Requests that met their SLOs over those decided."""
    decided = math.fsum(
        weight if o.outcome is None else not o.outcome.withdrawn for o, weight in pairs
    )
    met = sum(o.outcome.met for o, _ in pairs if o.outcome is not None)
    return met / decided if decided > 0 else None


def _grouped(items: Iterable[tuple[str, Offered, float]]) -> dict[str, float]:
    """Attainment per group, in order of name; groups with nothing decided are left out."""
    groups: dict[str, list[tuple[Offered, float]]] = defaultdict(list)
    for name, offered, weight in items:
        groups[name].append((offered, weight))
    shares = {name: _attainment(groups[name]) for name in sorted(groups)}
    return {name: share for name, share in shares.items() if share is not None}
