"""Messages and records with every field filled in, for these tests."""

import dataclasses
from typing import Any

from hmas_agents.records import DecisionRecord, Proposal, ToolCall
from serving.contracts import (
    SLO,
    Arrival,
    BatchState,
    CostCoefficients,
    Envelope,
    JournalPage,
    KVState,
    Limits,
    Outcome,
    QueueState,
    Snapshot,
    TenantCounters,
)

INTERACTIVE = SLO(ttft_ms=500, tpot_ms=30)
# The 8B model of the design page: 2.5 ms + 4 ms floor, 35 us per token, 33 ns per context token.
COST = CostCoefficients(0.0065, 35e-6, 35e-6, 33e-9)


def snapshot(now_s: float, **changes: Any) -> Snapshot:
    base = Snapshot(
        now_s=now_s,
        rank=0,
        vllm_version="0.32.0",
        epoch=3,
        policy="edf",
        params={},
        limits=Limits(256, 2048),
        envelope=Envelope(256, 2048, 16_384, 40_000, 16),
        controller_id="c1",
        lease_left_s=12.0,
        queue=QueueState(),
        batch=BatchState(),
        kv=KVState(total_blocks=40_000),
        cost=COST,
        length_coverage=0.9,
        counters=(TenantCounters("acme", "interactive", 5, 3, 1, 2, 400, 0, 800, 200),),
        journal_head=0,
    )
    return dataclasses.replace(base, **changes)


def arrival(number: int, at_s: float, **changes: Any) -> Arrival:
    base = Arrival(number, f"r{number}", at_s, "acme", "interactive", INTERACTIVE, 1000, 256)
    return dataclasses.replace(base, **changes)


def outcome(number: int, at_s: float, after_s: float = 2.0, **changes: Any) -> Outcome:
    base = Outcome(
        seq=number,
        request_id=f"r{number}",
        arrival_s=at_s,
        finished_s=at_s + after_s,
        tenant="acme",
        slo_class="interactive",
        slo=INTERACTIVE,
        prompt_tokens=1000,
        output_tokens=100,
        queue_s=0.1,
        ttft_s=0.2,
        tpot_s=0.02,
        e2e_s=after_s,
        met=True,
        miss="",
        finish="stop",
        policy="edf",
        epoch=3,
    )
    return dataclasses.replace(base, **changes)


def page(arrivals: Any = (), outcomes: Any = (), lost: int = 0) -> JournalPage:
    return JournalPage(cursor=0, lost=lost, arrivals=tuple(arrivals), outcomes=tuple(outcomes))


def record(**changes: Any) -> DecisionRecord:
    base = DecisionRecord(
        horizon="long",
        at_s=1_700_000_000.0,
        mode="act",
        trigger="tick",
        state={"policy": "edf", "load": 1.3, "alarms": ["rate_up"], "attainment": 0.54},
        epoch_before=3,
        epoch_after=4,
        policy_before="edf",
        summary="Load: overload.\nQueue: long.",
        prompt_name="policy",
        prompt_version=1,
        prompt_sha256="ab" * 32,
        model="smollm2",
        model_latency_s=0.8,
        model_tokens=612,
        raw_replies=['{"proposals": [{"policy": "slide"}]}'],
        faults=["model_timeout: no reply within 20 s"],
        proposals=[
            Proposal("model", "slide", {"kappa": 40.0}, "overload", 0.7, 0.81, "ok"),
            Proposal("incumbent", "edf", predicted=0.54),
        ],
        chosen={"policy": "slide", "params": {"kappa": 40.0}},
        reason="predicted 81.0% against 54.0%",
        tool_calls=[
            ToolCall(
                "switch_policy",
                {"policy": "slide", "reason": "overload"},
                accepted=True,
                reason="",
                before={"epoch": 3, "policy": "edf"},
                after={"epoch": 4, "policy": "slide"},
                ack={"accepted": True, "epoch": 4},
            )
        ],
        snapshot_before={"epoch": 3, "policy": "edf", "queue": {"waiting": 120}},
        snapshot_after={"epoch": 4, "policy": "slide", "queue": {"waiting": 118}},
        predicted=0.81,
    )
    return dataclasses.replace(base, **changes)
