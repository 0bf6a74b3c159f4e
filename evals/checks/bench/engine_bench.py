"""How much faster is the compiled engine than vLLM's own scheduler, and does it do the same?

`hmas bench engine`. Both serve the same requests in virtual time, in one process, in CPU time of
its thread. Every outcome of the oracle is compared with the compiled engine's, field by field.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from evals.requests.columns import RequestColumns
from evals.suite.arms import ALL_RULES, Arm, fixed_decision, parse_arm
from hmas_agents.config import load_config
from serving.contracts import Limits, Outcome, TraceRequest
from serving.contracts.requests import PREFIX_BLOCK_TOKENS
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from serving.engines.offered import columns
from serving.engines.profile import EngineProfile
from serving.engines.served import Served
from serving.engines.simulated import SimulatedEngine

Requests = tuple[TraceRequest, ...]
Result = dict[str, Any]
OnProgress = Callable[[str, int, int], None]
_TIGHT_BLOCKS, _SESSION_BLOCKS, _BLOCKS_EACH = 1_500, 9_000, 160
_TTL_S = 86_400.0
# Least requests per second of the compiled engine, and of these per one of the oracle's, by order
# of service, whatever the traffic.
STOCK, START = "stock", "start rules"
TARGETS = {STOCK: (300_000, 500), START: (60_000, 150)}


@dataclass(frozen=True, slots=True)
class BenchCase:
    """What both engines serve, and in which order."""

    name: str
    arm: Arm
    profile: EngineProfile
    requests: Requests
    # All requests come at second 0, so the queue is as long as the case says only until the
    # oracle's have left.
    at_once: bool = False


def bench_cases(
    trace: Requests, profile: EngineProfile, oracle_requests: int, seed: int
) -> list[BenchCase]:
    """Each order of service on each traffic, on the trace's requests where it does not say."""
    control = load_config(None).control
    arms = {
        STOCK: "vllm-fcfs",
        START: f"fixed-{'+'.join((control.start_policy, *control.start_rules))}",
        "all rules": f"fixed-{control.start_policy}+{ALL_RULES}",
        "edf+slack": "fixed-edf+slack",
    }
    cases = []
    for traffic, machine, requests, at_once in _traffic(trace, profile, oracle_requests, seed):
        for order, name in arms.items():
            if order != "edf+slack" or machine.prefix_caching:
                title = ", ".join(filter(None, (order, traffic)))
                cases.append(BenchCase(title, parse_arm(name), machine, requests, at_once))
    return cases


def _traffic(
    trace: Requests, profile: EngineProfile, oracle_requests: int, seed: int
) -> Iterator[tuple[str, EngineProfile, Requests, bool]]:
    def faster(factor: float) -> Requests:
        return tuple(replace(one, arrival_s=one.arrival_s / factor) for one in trace)

    yield "", profile, trace, False
    yield "6x the rate", profile, faster(6.0), False
    yield "KV tight, 4x", replace(profile, kv_blocks=_TIGHT_BLOCKS), faster(4.0), False
    chats = trace
    if not any(one.prefix for one in trace):
        chats = tuple(
            replace(one, tenant=like.tenant, slo_class=like.slo_class, priority=like.priority)
            for one, like in zip(sessions(len(trace) // 8, seed), trace, strict=False)
        )
    sharing = replace(profile, prefix_caching=True, kv_blocks=_SESSION_BLOCKS)
    clipped, _ = RequestColumns.of(chats).clipped(profile.max_model_len)
    yield "prefix cache", sharing, clipped.requests(), False
    for running in (256, 1024):
        machine = replace(profile, max_active_requests=running, kv_blocks=_BLOCKS_EACH * running)
        for waiting in (100, 10_000):
            count = running + waiting + oracle_requests
            copies = trace * -(-count // len(trace))
            at_once = tuple(replace(one, arrival_s=0.0) for one in copies[:count])
            yield f"{running:,} running, {waiting:,} waiting", machine, at_once, True


def sessions(chats: int, seed: int, turns: int = 8) -> Requests:
    """Turns of chats: each prompt is the chat so far, named by blocks as Mooncake's traces do."""
    rng, requests = random.Random(f"{seed}:sessions"), list[TraceRequest]()
    for chat in range(chats):
        now_s, prompt_tokens = rng.random() * 4.0 * chats, 0
        for _ in range(turns):
            prompt_tokens += 1 + int(rng.expovariate(1 / 400))
            answer = 1 + int(rng.expovariate(1 / 150))
            blocks = -(-prompt_tokens // PREFIX_BLOCK_TOKENS)
            names = tuple(chat * 1_000_000 + k for k in range(blocks))
            requests.append(TraceRequest(now_s, prompt_tokens, answer, prefix=names))
            prompt_tokens += answer
            now_s += 5.0 + rng.expovariate(1 / 20)
    requests.sort(key=lambda one: one.arrival_s)
    return tuple(replace(one, arrival_s=one.arrival_s - requests[0].arrival_s) for one in requests)


def shortfalls(results: Sequence[Result]) -> list[str]:
    """What is not as it must be: outcomes that differ, and cases below `TARGETS`."""
    found = []
    for one in results:
        name = one["case"]
        if one["different"]:
            found.append(f"{name}: {one['different']} outcomes are not the oracle's")
        order = name.split(", ")[0]
        for key, least in zip(("requests_per_s", "ratio"), TARGETS.get(order, ()), strict=False):
            if one[key] < least:
                found.append(f"{name}: {key} {one[key]:,.0f} is below {least:,}")
    return found


def time_case(
    case: BenchCase, settings: EngineSettings, oracle_requests: int, rounds: int,
    on_progress: OnProgress = lambda *_: None,
) -> Result:  # fmt: skip
    """Both engines on a case: the compiled one on all requests, the oracle on the first ones.

    `ratio` is of requests per second on the oracle's requests, `different` the number of those
    whose outcome is not the oracle's. The compiled engine is timed from columns to columns;
    `outcomes_per_s` is how many outcome objects are made of these in a second.

    The oracle goes on until `oracle_requests` have left; figures are medians of `rounds`.
    """
    on_progress(case.name, 0, oracle_requests)
    _, served = _time(case, case.requests, None, settings)  # compiles, or reads code from disk
    left_s = sorted(served.finished_s.tolist())
    until_s = left_s[min(oracle_requests, len(left_s)) - 1]
    counted = tuple(one for one in case.requests if one.arrival_s < until_s)
    oracle = SimulatedEngine(case.profile, settings, stock=case.arm.kind == "stock")
    _decide(oracle, case)
    before_s = time.thread_time()
    expected = oracle.run(
        counted, until_s=until_s,
        on_progress=lambda left: on_progress(case.name, left, oracle_requests),
    )  # fmt: skip
    first = _left(expected)
    oracle_rate = first / (time.thread_time() - before_s)
    # No run is kept while others are timed: each would begin in memory that nobody has touched,
    # and the faults of its pages count as its time.
    rate = first_rate = median(
        first / _time(case, counted, until_s, settings)[0] for _ in range(rounds)
    )
    served = _time(case, counted, until_s, settings)[1]
    before_s = time.thread_time()
    outcomes = served.outcomes(counted, settings)
    outcome_rate = len(outcomes) / (time.thread_time() - before_s)
    count = first
    if not case.at_once and len(case.requests) > first:
        count = len(case.requests)
        rate = median(count / _time(case, case.requests, None, settings)[0] for _ in range(rounds))
    return {
        "case": case.name, "requests": count, "requests_per_s": round(rate, 1),
        "oracle_requests": first, "oracle_requests_per_s": round(oracle_rate, 1),
        "ratio": round(first_rate / oracle_rate, 1),
        "different": sum(a != b for a, b in zip(expected, outcomes, strict=True)),
        "outcomes_per_s": round(outcome_rate),
    }  # fmt: skip


def _time(
    case: BenchCase, requests: Requests, until_s: float | None, settings: EngineSettings
) -> tuple[float, Served]:
    workload = columns(requests, case.profile)
    engine = CompiledEngine(case.profile, settings, stock=case.arm.kind == "stock")
    _decide(engine, case)
    before_s = time.thread_time()
    served = engine.run_columns(workload, until_s=until_s, requests=requests)
    return time.thread_time() - before_s, served


def _decide(engine: CompiledEngine | SimulatedEngine, case: BenchCase) -> None:
    if case.arm.kind != "stock":
        limits = Limits(case.profile.max_active_requests, case.profile.token_budget)
        ack = engine.apply(fixed_decision(case.arm, limits, 1, _TTL_S))
        assert ack.accepted, ack


def _left(outcomes: Sequence[Outcome]) -> int:
    return sum(one.finish != "unfinished" for one in outcomes)
