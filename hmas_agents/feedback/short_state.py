"""What do the last few seconds look like? Called by `Feedback.short_state`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hmas_agents.feedback.short_window import ShortWindow
from hmas_agents.states import ShortState
from serving.contracts import Snapshot
from serving.engines.ranks import rank_count


@dataclass(frozen=True, slots=True)
class EngineTotals:
    """Counters of an engine that only grow while it lives."""

    now_s: float
    steps: int
    preemptions: int

    @classmethod
    def of(cls, snapshot: Snapshot) -> "EngineTotals":
        """The counters in a snapshot."""
        return cls(
            snapshot.now_s,
            snapshot.batch.steps,
            snapshot.kv.preemptions,
        )

    def is_before(self, other: "EngineTotals") -> bool:
        """Whether a counter or the clock is behind `other`'s."""
        return (
            self.now_s < other.now_s
            or self.steps < other.steps
            or self.preemptions < other.preemptions
        )


def build_short_state(
    snapshot: Snapshot,
    *,
    totals: Sequence[EngineTotals],
    recent: ShortWindow,
    by_class: dict[str, float],
    by_tenant: dict[str, float],
) -> ShortState:
    """The short state.

    Args:
        snapshot: the engine now.
        totals: its counters over the short window, oldest first, at least one.
        recent: what arrived and what left within the short window.
        by_class: EWMA attainment per SLO class.
        by_tenant: EWMA attainment per tenant.

    `kv_predicted_peak` above 1 announces preemptions.
    Shares in vain are of the waiting requests and the ones served in time: hopeless requests pile
    up in the queue, so they are most of it even where most requests are served. These shares tell
    of misses long before outcomes do, because hopeless requests are served last.
    """
    queue, batch, kv = snapshot.queue, snapshot.batch, snapshot.kv
    sheddable = snapshot.envelope.sheddable
    met = sum(recent.met_by_class.values())
    sheddable_met = sum(recent.met_by_class[name] for name in sheddable)
    kept = queue.waiting - queue.sheddable + met - sheddable_met
    kept_in_vain = max(0, queue.hopeless - queue.sheddable_hopeless)
    cost, context = snapshot.cost, kv.used_blocks * snapshot.envelope.block_size
    decode_s = cost.per_decode_s + cost.per_context_token_s * context / max(1, batch.running)
    span_s = totals[-1].now_s - totals[0].now_s
    preemptions = totals[-1].preemptions - totals[0].preemptions
    return ShortState(
        now_s=snapshot.now_s,
        epoch=snapshot.epoch,
        policy=snapshot.policy,
        limits=snapshot.limits,
        max_token_budget=snapshot.envelope.token_budget,
        max_active_requests=snapshot.envelope.max_active_requests,
        waiting=queue.waiting,
        running=batch.running,
        decoding=batch.decoding,
        prefilling=batch.prefilling,
        queued_prefill_s=finite(queue.queued_prefill_s),
        oldest_wait_s=finite(queue.oldest_wait_s),
        min_laxity_s=finite_or_none(queue.min_laxity_s),
        p10_laxity_s=finite_or_none(queue.p10_laxity_s),
        hopeless_share=min(1.0, queue.hopeless / max(1, queue.waiting)),
        decode_slack_p10_s=finite_or_none(batch.decode_slack_p10_s),
        step_time_bias=finite(batch.step_time_bias),
        kv_used=kv.used_blocks / max(1, kv.total_blocks),
        kv_predicted_peak=kv.predicted_peak_blocks / max(1, kv.total_blocks),
        preemptions_per_s=preemptions / span_s if span_s > 0 else 0.0,
        tpot_miss_share=recent.tpot_miss_share(),
        ttft_miss_share=recent.ttft_miss_share(),
        attainment_by_class=by_class,
        attainment_by_tenant=by_tenant,
        ranks=rank_count(snapshot),
        offered_by_tenant=recent.offered_shares(),
        requests_by_tenant=recent.requests(),
        sheddable=sheddable,
        sheddable_waiting=queue.sheddable,
        in_vain_share=min(1.0, kept_in_vain / max(1, kept)),
        sheddable_in_vain_share=min(
            1.0, queue.sheddable_hopeless / max(1, queue.sheddable + sheddable_met)
        ),
        step_base_s=finite(cost.base_s),
        decode_s=finite(decode_s) if batch.running else 0.0,
        tpot_targets=recent.tpot_target_shares(),
    )


def finite(value: float | None) -> float:
    """The value, or 0 where it is missing, NaN or infinite."""
    return value if value is not None and math.isfinite(value) else 0.0


def finite_or_none(value: float | None) -> float | None:
    """The value, or None where it is missing, NaN or infinite."""
    return value if value is not None and math.isfinite(value) else None
