"""Do several ranks add up to one engine, and does a rank that differs show?"""

from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from serving.contracts import (
    Ack,
    BatchState,
    Envelope,
    KVState,
    QueueState,
    Snapshot,
    TenantCounters,
    TenantLoad,
)
from serving.contracts.rules import COUNTERS
from serving.engines.ranks import in_step, merge_acks, merge_snapshots, rank_count
from tests.fakes import FakeEngine


def shot(rank: int, **changes: Any) -> Snapshot:
    return replace(FakeEngine().snapshot(), rank=rank, **changes)


BUSY = shot(
    0, now_s=50.0, epoch=4, controller_id="me", lease_left_s=9.0, policy="edf",
    queue=QueueState(10, 3000, 1.5, 4.0, 0.2, 0.4, 3),
    batch=BatchState(8, 6, 2, 0.03, 100, 0.05, 0.1, 512),
    kv=KVState(1000, 400, 500, 2, 70), length_coverage=0.9, policy_errors=1, last_error="boom",
    counters=(TenantCounters("acme", "batch", 5, 3, 1, 2, 70),), journal_head=8,
    loads=(TenantLoad("acme", 2, 3),),
    rules={name: n for n, name in enumerate(COUNTERS)},
)  # fmt: skip
SUMS = {
    "queue.waiting", "queue.waiting_tokens", "queue.hopeless", "batch.running", "batch.decoding",
    "batch.prefilling", "batch.steps", "policy_errors", *(f"kv.{f.name}" for f in fields(KVState)),
    *(f"rules.{name}" for name in COUNTERS),
}  # fmt: skip


def flat(snapshot: Snapshot) -> dict[str, Any]:
    values = asdict(snapshot)
    for part in ("queue", "batch", "kv", "rules"):
        values |= {f"{part}.{name}": value for name, value in values.pop(part).items()}
    for name in ("ranks", "rank", "last_error", "counters", "loads", "journal_head"):
        del values[name]
    return values


def test_equal_ranks_sum_in_counts_and_stay_in_everything_else():
    """No field is forgotten, one that is added later included."""
    alone = flat(BUSY)
    together = flat(merge_snapshots([replace(BUSY, rank=rank) for rank in range(3)]))
    for name, value in alone.items():
        want = 3 * value if name in SUMS else value
        assert together[name] == (pytest.approx(want) if isinstance(want, float) else want), name


def test_one_rank_is_itself():
    assert merge_snapshots([BUSY]) is BUSY
    assert (rank_count(BUSY), in_step(BUSY)) == (1, True)


def test_seconds_are_those_of_one_rank_and_the_worst_where_it_counts():
    idle = shot(1, now_s=49.9, batch=BatchState(2, 2, 0, 0.11, 300, 0.02, -0.1, 64))
    both = merge_snapshots([BUSY, idle])
    assert (both.now_s, both.queue.oldest_wait_s, both.queue.min_laxity_s) == (50.0, 4.0, 0.2)
    assert both.queue.queued_prefill_s == 0.75  # both work on it
    assert both.queue.p10_laxity_s == 0.4
    assert both.batch.decode_slack_p10_s == pytest.approx((6 * 0.03 + 2 * 0.11) / 8)
    assert both.batch.step_time_bias == pytest.approx((100 * 0.1 - 300 * 0.1) / 400)
    assert both.batch.last_step_s == 0.05
    assert both.length_coverage == 0.9
    nobody = merge_snapshots([shot(0), shot(1)])
    assert (nobody.queue.min_laxity_s, nobody.queue.p10_laxity_s) == (None, None)
    assert nobody.batch.step_time_bias == 0.0


def test_tenants_are_summed_by_class_and_sorted():
    other = (TenantCounters("aaa", "batch", 1), TenantCounters("acme", "batch", 2, 2, 0, 1, 5))
    both = merge_snapshots([BUSY, shot(1, counters=other, loads=BUSY.loads)])
    assert both.loads == (TenantLoad("acme", 4, 6),)
    assert both.counters == (
        TenantCounters("aaa", "batch", 1), TenantCounters("acme", "batch", 7, 5, 1, 3, 75),
    )  # fmt: skip


def test_limits_and_envelope_stay_per_rank_and_the_smallest_envelope_counts():
    small = shot(1, envelope=Envelope(64, 2048, 4096, 900, 16))
    both = merge_snapshots([BUSY, small])
    assert both.limits == BUSY.limits
    assert both.envelope == Envelope(64, 2048, 4096, 900, 16)
    assert rank_count(both) == 2


def test_the_next_epoch_is_above_every_rank_and_a_held_rank_speaks_for_all():
    fallen = shot(1, epoch=6, policy="fcfs", now_s=50.0)  # its lease ended, and counted on
    both = merge_snapshots([BUSY, fallen])
    assert (both.epoch, both.policy, both.controller_id) == (6, "edf", "me")
    assert not in_step(both)
    assert [rank.policy for rank in both.ranks] == ["edf", "fcfs"]
    newer = merge_snapshots([BUSY, replace(BUSY, rank=1, epoch=5, policy="slide")])
    assert (newer.epoch, newer.policy) == (5, "slide")
    assert not in_step(newer)


def test_the_lease_left_is_the_shortest_and_faults_say_where():
    both = merge_snapshots(
        [BUSY, replace(BUSY, rank=1, lease_left_s=2.0, last_error="bang", policy_errors=2)]
    )
    assert (both.lease_left_s, both.policy_errors) == (2.0, 3)
    assert both.last_error == "rank 0: boom; rank 1: bang"
    assert in_step(both)


def test_without_a_controller_epochs_may_differ():
    assert in_step(merge_snapshots([shot(0, epoch=3), shot(1, epoch=5)]))


def test_all_accept():
    acks = {0: Ack(True, 4, "in force", {"token_budget": 512}),
            1: Ack(True, 4, "in force", {"token_budget": 256})}  # fmt: skip
    assert merge_acks(acks) == Ack(True, 4, "in force", {"token_budget": 256})


def test_one_refusal_refuses_and_names_both_sides():
    ack = merge_acks({0: Ack(True, 4, "in force"), 1: Ack(False, 7, "epoch 4 is not above 7")})
    assert (ack.accepted, ack.epoch) == (False, 7)
    assert "rank 1 refused: epoch 4 is not above 7" in ack.reason
    assert "accepted by rank 0" in ack.reason


def test_the_same_refusal_everywhere_is_said_once():
    ack = merge_acks({0: Ack(False, 2, "ttl_s"), 1: Ack(False, 3, "ttl_s")})
    assert ack == Ack(False, 3, "every rank refused: ttl_s")


def test_a_renewal_of_different_decisions_is_refused_a_release_is_not():
    acks = {0: Ack(True, 5, "renewed"), 1: Ack(True, 4, "renewed")}
    renewed = merge_acks(acks, one_epoch=True)
    assert (renewed.accepted, renewed.epoch) == (False, 5)
    assert "rank 0 at 5, rank 1 at 4" in renewed.reason
    assert merge_acks(acks).accepted
