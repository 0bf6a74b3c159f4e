"""What was in force is read off the decisions' snapshots."""

from hmas_agents.explain.phases import during, phases
from hmas_agents.ledger import StoredDecision
from serving.contracts import Limits, encode
from tests.hmas_agents.samples import record, snapshot


def decision(number, at_s, before, after):
    """`before` and `after`: (epoch, policy, token budget)."""

    def seen(state):
        epoch, policy, budget = state
        return encode(snapshot(at_s, epoch=epoch, policy=policy, limits=Limits(256, budget)))

    made = record(at_s=at_s, snapshot_before=seen(before), snapshot_after=seen(after))
    return StoredDecision(number, 1, made)


OLD, BUDGET, NEW = (3, "fcfs", 2048), (4, "fcfs", 512), (5, "edf", 512)
DECISIONS = [
    decision(1, 10.0, OLD, OLD),
    decision(2, 20.0, OLD, BUDGET),
    decision(3, 30.0, NEW, NEW),  # somebody else switched between 20 and 30
]


def test_a_change_begins_a_phase_and_names_who_made_it():
    found = phases(DECISIONS)
    assert [(p.since_s, p.until_s, p.epoch, p.policy, p.decision_id) for p in found] == [
        (10.0, 20.0, 3, "fcfs", None),
        (20.0, 30.0, 4, "fcfs", 2),
        (30.0, None, 5, "edf", None),
    ]
    assert [p.limits.token_budget for p in found] == [2048, 512, 512]


def test_only_what_was_in_force_in_between_is_told():
    def epochs(since_s, until_s):
        return [p.epoch for p in during(phases(DECISIONS), since_s, until_s)]

    assert epochs(12.0, 15.0) == [3]
    assert epochs(15.0, 25.0) == [3, 4]
    assert epochs(40.0, 50.0) == [5]
    assert epochs(0.0, 5.0) == [3]  # what the first decision found was there before it


def test_decisions_without_a_readable_snapshot_say_nothing():
    unreadable = StoredDecision(9, 1, record())  # a handful of keys
    empty = StoredDecision(10, 1, record(snapshot_before={}, snapshot_after={}))
    assert phases([unreadable, empty]) == []
