"""How much faster is the compiled engine than vLLM's own scheduler, and does it do the same?

`hmas bench engine`. Both serve the same requests in virtual time, in one process, in CPU time of
its thread. Every outcome of the oracle is compared with the compiled engine's, field by field.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from evals.workloads.scaling import Requests, clip_lengths, scale_to_rate, span_s
from serving.contracts import TraceRequest
from serving.contracts.requests import PREFIX_BLOCK_TOKENS
from serving.engines.compiled import CompiledEngine
from serving.engines.offered import columns
from serving.engines.profile import EngineProfile
from serving.engines.served import Served
from serving.engines.simulated import SimulatedEngine
from serving.settings import EngineSettings

Result = dict[str, Any]
OnProgress = Callable[[str, int, int], None]
_TIGHT_BLOCKS, _SESSION_BLOCKS, _BLOCKS_EACH = 1_500, 9_000, 160


@dataclass(frozen=True, slots=True)
class BenchCase:
    """What both engines serve. With `until_first` a run ends when so many have left.

    Then the queue stays as long as the case says, and only those count as served.
    """

    name: str
    profile: EngineProfile
    requests: Requests
    until_first: bool = False


@dataclass(frozen=True, slots=True)
class EngineBenchOptions:
    """What to time.

    Attributes:
        cases: names from `bench_cases`; none is all.
        oracle_requests: vLLM's scheduler serves so many of each case, from its start.
        rounds: runs of the compiled engine; figures are medians.
    """

    cases: tuple[str, ...] = ()
    oracle_requests: int = 1000
    rounds: int = 5


def bench_cases(
    trace: Requests, profile: EngineProfile, oracle_requests: int, seed: int
) -> list[BenchCase]:
    """All cases, on the trace's requests where they do not say otherwise."""

    def faster(factor: float) -> Requests:
        return scale_to_rate(trace, factor * len(trace) / span_s(trace))

    chats = trace if any(one.prefix for one in trace) else sessions(len(trace) // 8, seed)
    sharing = replace(profile, prefix_caching=True, kv_blocks=_SESSION_BLOCKS)
    cases = [
        BenchCase("stock", profile, trace),
        BenchCase("stock, 6x the rate", profile, faster(6.0)),
        BenchCase("KV tight, 4x", replace(profile, kv_blocks=_TIGHT_BLOCKS), faster(4.0)),
        BenchCase("prefix cache", sharing, clip_lengths(chats, profile.max_model_len)[0]),
    ]
    for running in (256, 1024):
        for waiting in (100, 10_000):
            machine = replace(
                profile, max_active_requests=running, kv_blocks=_BLOCKS_EACH * running
            )
            name = f"{running:,} running, {waiting:,} waiting"
            at_once = _at_once(trace, running + waiting + oracle_requests)
            cases.append(BenchCase(name, machine, at_once, until_first=True))
    return cases


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


def run_engine_bench(
    options: EngineBenchOptions,
    cases: Sequence[BenchCase],
    settings: EngineSettings,
    on_progress: OnProgress = lambda *_: None,
) -> list[Result]:
    """Two results per case: the compiled engine on all requests, the oracle on the first ones.

    `ratio` is of requests per second on the oracle's requests, `different` the number of those
    whose outcome is not the oracle's. The compiled engine is timed from columns to columns;
    `outcomes_per_s` is how many outcome objects are made of these in a second.
    """
    results = []
    for case in cases:
        if not options.cases or case.name in options.cases:
            results += _time_case(case, options, settings, on_progress)
    return results


def _time_case(
    case: BenchCase, options: EngineBenchOptions, settings: EngineSettings, on_progress: OnProgress
) -> list[Result]:
    first = min(options.oracle_requests, len(case.requests))
    counted = case.requests if case.until_first else case.requests[:first]
    last = tuple(f"r{i}" for i in range(first)) if case.until_first else ()
    oracle = SimulatedEngine(case.profile, settings, stock=True)
    before_s = time.thread_time()
    expected = oracle.run(
        counted, until_left=last,
        on_progress=lambda done: on_progress(case.name, done, first),
    )  # fmt: skip
    oracle_rate = first / (time.thread_time() - before_s)
    _time(case, counted[:8], (), settings)  # compiles, or reads the code from disk
    rates = []
    for _ in range(options.rounds):
        taken_s, served = _time(case, counted, last, settings)
        rates.append(first / taken_s)
    before_s = time.thread_time()
    outcomes = served.outcomes(counted, settings)
    outcome_rate = len(outcomes) / (time.thread_time() - before_s)
    count, rate = first, median(rates)
    if not case.until_first and len(case.requests) > first:
        count = len(case.requests)
        rate = median(
            count / _time(case, case.requests, (), settings)[0] for _ in range(options.rounds)
        )
    different = sum(a != b for a, b in zip(expected, outcomes, strict=True))
    compiled = {
        "case": case.name, "engine": "compiled", "requests": count,
        "requests_per_s": round(rate, 1), "ratio": round(median(rates) / oracle_rate, 1),
        "different": different, "outcomes_per_s": round(outcome_rate),
    }  # fmt: skip
    return [
        compiled,
        {
            "case": case.name, "engine": "oracle", "requests": first,
            "requests_per_s": round(oracle_rate, 1), "ratio": 1.0, "different": 0,
        },
    ]  # fmt: skip


def _time(
    case: BenchCase, requests: Requests, last: Sequence[str], settings: EngineSettings
) -> tuple[float, Served]:
    workload = columns(requests, case.profile)
    engine = CompiledEngine(case.profile, settings, stock=True)
    before_s = time.thread_time()
    served = engine.run_columns(workload, until_left=last)
    return time.thread_time() - before_s, served


def _at_once(trace: Requests, count: int) -> Requests:
    times = -(-count // len(trace))
    return tuple(replace(one, arrival_s=0.0) for one in (trace * times)[:count])
