"""What do several data-parallel ranks look like as one engine? Pure functions, for `live`.

vLLM runs one engine core per rank, each with a hook of its own. Every rank is asked, and
the answers are merged here:

- counts (requests, tokens, blocks, steps, rules, tenants) are sums over ranks;
- seconds are those of one rank: ranks work side by side, so `queued_prefill_s` is their
  mean, waits and laxities are the worst rank's, p10s and biases are weighted means;
- `limits` and `envelope` stay *per rank*: compare them with a count divided by
  `rank_count`; of envelopes that differ the smallest value counts;
- policy, parameters, limits and owner are those of the rank with the highest epoch among
  the ranks that a controller holds (of all, when none is held); `epoch` is the highest of
  all, so that every rank accepts the next one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, replace

from serving.contracts import (
    Ack,
    BatchState,
    ContractAck,
    Envelope,
    KVState,
    QueueState,
    Snapshot,
    TenantCounters,
    TenantLoad,
)
from serving.engines.joint_journal import join_cursors


def rank_count(snapshot: Snapshot) -> int:
    """How many ranks the snapshot sums up."""
    return max(1, len(snapshot.ranks))


def in_step(snapshot: Snapshot) -> bool:
    """Whether every rank has the same decision and the same contract in force."""
    held = {
        (
            rank.controller_id, rank.policy, rank.epoch if rank.controller_id else 0,
            rank.contract_epoch,
        )
        for rank in snapshot.ranks
    }  # fmt: skip
    return len(held) <= 1


def rank_name(rank: Snapshot) -> str:
    """What a rank is called: by its number, in a fleet by its replica."""
    if not rank.replica:
        return f"rank {rank.rank}"
    return f"{rank.replica} rank {rank.rank}" if rank.rank else rank.replica


def merge_snapshots(ranks: Sequence[Snapshot]) -> Snapshot:
    """One snapshot of all ranks (in order of rank), which it keeps in `ranks`."""
    if len(ranks) == 1:
        return ranks[0]
    lead = max(ranks, key=lambda rank: (bool(rank.controller_id), rank.epoch))
    joint = join_cursors({rank.rank: rank.journal_head for rank in ranks})
    return sum_up(ranks, lead, joint)


def sum_up(ranks: Sequence[Snapshot], lead: Snapshot, journal_head: int) -> Snapshot:
    """All ranks as one, under the decision of the `lead`."""
    same_owner = [rank for rank in ranks if rank.controller_id == lead.controller_id]
    envelopes = zip(*(astuple(rank.envelope) for rank in ranks), strict=True)
    return replace(
        lead,
        now_s=max(rank.now_s for rank in ranks),
        rank=ranks[0].rank,
        epoch=max(rank.epoch for rank in ranks),
        envelope=Envelope(*(min(values) for values in envelopes)),
        lease_left_s=min(rank.lease_left_s for rank in same_owner),
        queue=_merge_queues([rank.queue for rank in ranks]),
        batch=_merge_batches([rank.batch for rank in ranks]),
        kv=_sum_kv([rank.kv for rank in ranks]),
        # Ranks run on equal hardware: the figures of the one that has learned most.
        cost=max(ranks, key=lambda rank: rank.batch.steps).cost,
        length_coverage=_mean((rank.length_coverage, rank.batch.steps) for rank in ranks),
        counters=_merge_counters(ranks),
        loads=_merge_loads(ranks),
        journal_head=journal_head,
        policy_errors=sum(rank.policy_errors for rank in ranks),
        last_error="; ".join(f"{rank_name(r)}: {r.last_error}" for r in ranks if r.last_error),
        rules={name: sum(rank.rules.get(name, 0) for rank in ranks) for name in lead.rules},
        ranks=tuple(ranks),
        stopped=next((rank.stopped for rank in ranks if rank.stopped), None),
        contract_epoch=max(rank.contract_epoch for rank in ranks),
        started_s=max(rank.started_s for rank in ranks),  # one that is new is a new engine
    )


def merge_acks(
    acks: Mapping[int, Ack], *, one_epoch: bool = False, what: str = "decision"
) -> Ack:
    """One answer for all ranks: accepted only if each has accepted.

    Args:
        acks: by rank.
        one_epoch: refuse ranks that are not at the same epoch, so that whoever renews
            learns that they hold different decisions, and applies its own again.
        what: is applied.

    The reason names the ranks that refused, and those where the decision is in force
    nevertheless: until the next one, whose epoch is above all, or the end of the lease.
    """
    if len(acks) == 1:
        return next(iter(acks.values()))
    refused = {rank: ack for rank, ack in acks.items() if not ack.accepted}
    epoch = max(ack.epoch for ack in acks.values())
    first = next(iter(acks.values()))
    reason = first.reason
    if refused:
        reasons = {ack.reason for ack in refused.values()}
        reason = "; ".join(f"rank {rank} refused: {ack.reason}" for rank, ack in refused.items())
        if len(refused) == len(acks) and len(reasons) == 1:
            reason = f"every rank refused: {reasons.pop()}"
        elif len(refused) < len(acks):
            done = ", ".join(str(rank) for rank in acks if rank not in refused)
            reason += f"; accepted by rank {done}: the next {what} brings them together"
    elif one_epoch and len({ack.epoch for ack in acks.values()}) > 1:
        epochs = ", ".join(f"rank {rank} at {ack.epoch}" for rank, ack in acks.items())
        reason = f"the ranks hold different decisions (epochs: {epochs}): apply one to all"
        return Ack(False, epoch, reason)
    return Ack(not refused, epoch, reason, least_clamped(acks.values()))


def least_clamped(acks: Iterable[Ack]) -> dict[str, float]:
    """The smallest value that any clamped a limit to, by limit."""
    clamped: dict[str, float] = {}
    for ack in acks:
        for name, value in ack.clamped.items():
            clamped[name] = min(value, clamped.get(name, value))
    return clamped


def merge_contract_acks(acks: Mapping[int, ContractAck]) -> ContractAck:
    """One answer for all ranks, as `merge_acks` gives it for decisions."""
    plain = {rank: Ack(ack.accepted, ack.epoch, ack.reason) for rank, ack in acks.items()}
    merged = merge_acks(plain, what="contract")
    lead = max(acks.values(), key=lambda ack: len(ack.changes))  # ranks may hold different ones
    before = max(ack.epoch_before for ack in acks.values())
    return ContractAck(merged.accepted, merged.epoch, before, merged.reason, lead.changes)


def _merge_queues(queues: Sequence[QueueState]) -> QueueState:
    laxities = [q.min_laxity_s for q in queues if q.min_laxity_s is not None]
    return QueueState(
        waiting=sum(q.waiting for q in queues),
        waiting_tokens=sum(q.waiting_tokens for q in queues),
        queued_prefill_s=sum(q.queued_prefill_s for q in queues) / len(queues),
        oldest_wait_s=max(q.oldest_wait_s for q in queues),
        min_laxity_s=min(laxities, default=None),
        p10_laxity_s=_mean((q.p10_laxity_s, q.waiting) for q in queues),
        hopeless=sum(q.hopeless for q in queues),
        sheddable=sum(q.sheddable for q in queues),
        sheddable_hopeless=sum(q.sheddable_hopeless for q in queues),
    )


def _merge_batches(batches: Sequence[BatchState]) -> BatchState:
    return BatchState(
        running=sum(b.running for b in batches),
        decoding=sum(b.decoding for b in batches),
        prefilling=sum(b.prefilling for b in batches),
        decode_slack_p10_s=_mean((b.decode_slack_p10_s, b.decoding) for b in batches),
        steps=sum(b.steps for b in batches),
        last_step_s=max(b.last_step_s for b in batches),
        step_time_bias=_mean((b.step_time_bias, b.steps) for b in batches) or 0.0,
        last_token_budget=max(b.last_token_budget for b in batches),
    )


def _merge_counters(ranks: Sequence[Snapshot]) -> tuple[TenantCounters, ...]:
    totals: dict[tuple[str, str], list[int]] = {}
    for rank in ranks:
        for row in rank.counters:
            key, values = (row.tenant, row.slo_class), astuple(row)[2:]
            before = totals.get(key, [0] * len(values))
            totals[key] = [a + b for a, b in zip(before, values, strict=True)]
    return tuple(TenantCounters(*key, *totals[key]) for key in sorted(totals))


def _merge_loads(ranks: Sequence[Snapshot]) -> tuple[TenantLoad, ...]:
    totals: dict[str, TenantLoad] = {}
    for load in (one for rank in ranks for one in rank.loads):
        sofar = totals.get(load.tenant, TenantLoad(load.tenant, 0, 0))
        totals[load.tenant] = TenantLoad(
            load.tenant, sofar.waiting + load.waiting, sofar.inside + load.inside
        )
    return tuple(totals.values())


def _sum_kv(parts: Sequence[KVState]) -> KVState:
    columns = zip(*(astuple(part) for part in parts), strict=True)
    return KVState(*(sum(column) for column in columns))


def _mean(weighted: Iterable[tuple[float | None, float]]) -> float | None:
    """Weighted mean of what is known; the plain one when nothing weighs, None of nothing."""
    known = [(value, weight) for value, weight in weighted if value is not None]
    if not known:
        return None
    total = sum(weight for _, weight in known)
    if total <= 0:
        return sum(value for value, _ in known) / len(known)
    return sum(value * weight for value, weight in known) / total
