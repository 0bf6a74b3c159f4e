"""Do the compiled engine and vLLM's own scheduler do the same, step by step? Runs both.

A `Story` is all that can be seen of a run: each step's moment, the tokens of each request in order
and who was preempted, one outcome per request, and the tokens that were computed in vain.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput

from serving.contracts import Contract, CostCoefficients, Outcome, TraceRequest
from serving.contracts.contract import ClassTerms
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from serving.engines.profile import EngineProfile
from serving.engines.resumed import Begun
from serving.engines.simulated import SimulatedEngine

# Steps take about 10 ms when nothing of a prompt is in them.
SETTINGS = EngineSettings(
    contract=Contract(
        classes={
            "interactive": ClassTerms(ttft_ms=500, tpot_ms=30, itl_ms=12),
            "batch": ClassTerms(e2e_ms=600_000, itl_ms=45),
        }
    )
)
GAPS_OF_S = 0.3, 2.0
COST = CostCoefficients(7.85e-3, 102.6e-6, 98.7e-6, 64.3e-9, 3.36e-9)
# (second it began, ((request, tokens), ...), preempted requests)
Step = tuple[float, tuple[tuple[str, int], ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Case:
    """What both engines run; `tick_s` is the period of a ticker, 0 is none."""

    profile: EngineProfile
    requests: tuple[TraceRequest, ...]
    threshold: int = 0
    until_s: float | None = None
    until_left: tuple[str, ...] = ()
    tick_s: float = 0.0
    begun: tuple[Begun, ...] = ()
    by_priority: bool = False


@dataclass(frozen=True, slots=True)
class Story:
    """What came of a case.

    Attributes:
        ticks: the seconds at which the ticker was called.
        gaps: between tokens, of the requests that arrive in `GAPS_OF_S`, by bins.
    """

    steps: list[Step]
    outcomes: list[Outcome]
    recomputed_tokens: int
    ticks: list[float]
    gaps: list[int]

    @property
    def preemptions(self) -> int:
        """Requests preempted in all steps."""
        return sum(len(preempted) for *_, preempted in self.steps)


def by_vllm(case: Case) -> Story:
    """Run vLLM's own scheduler."""
    engine = SimulatedEngine(
        case.profile, SETTINGS, stock=True, by_priority=case.by_priority
    )
    engine.scheduler.scheduler_config.long_prefill_token_threshold = case.threshold
    engine.gaps_of_s = GAPS_OF_S
    steps, ticks = list[Step](), list[float]()

    def seen(output: SchedulerOutput) -> None:
        preempted = tuple(sorted(output.preempted_req_ids or ()))
        if output.num_scheduled_tokens or preempted:
            steps.append((engine.now(), tuple(output.num_scheduled_tokens.items()), preempted))

    engine.resume(case.begun)
    tickers = [(case.tick_s, lambda: ticks.append(engine.now()))] if case.tick_s else []
    outcomes = engine.run(
        case.requests, tickers, case.until_s, on_step=seen, until_left=case.until_left
    )
    all_outcomes = [*engine.resumed_outcomes, *outcomes]
    counts = engine.gap_counts.tolist()
    return Story(steps, all_outcomes, engine.recomputed_tokens, ticks, counts)


def compiled(case: Case) -> Story:
    """Run the compiled engine."""
    engine = CompiledEngine(
        case.profile, SETTINGS, stock=True, long_prefill_threshold=case.threshold,
        by_priority=case.by_priority,
    )  # fmt: skip
    engine.gaps_of_s = GAPS_OF_S
    steps, ticks = list[Step](), list[float]()
    engine.resume(case.begun)
    tickers = [(case.tick_s, lambda: ticks.append(engine.now()))] if case.tick_s else []
    outcomes = engine.run(
        case.requests, tickers, case.until_s, until_left=case.until_left,
        on_steps=lambda log: steps.extend(steps_of(log, len(case.begun))),
    )  # fmt: skip
    all_outcomes = [*engine.resumed_outcomes, *outcomes]
    counts = engine.gap_counts.tolist()
    return Story(steps, all_outcomes, engine.recomputed_tokens, ticks, counts)


def steps_of(log: Any, begun: int) -> list[Step]:
    """The step log in vLLM's terms."""

    def name(row: int) -> str:
        return f"b{row}" if row < begun else f"r{row - begun}"

    steps = []
    for _, entries in groupby(log.tolist(), key=lambda entry: entry[1]):
        step = list(entries)
        served = tuple((name(row), tokens) for *_, row, tokens in step if tokens)
        preempted = sorted(name(row) for *_, row, tokens in step if not tokens)
        steps.append((step[0][0], served, tuple(preempted)))
    return steps


def difference(expected: Story, found: Story) -> str:
    """The first thing in which two stories differ; empty if in none."""
    for i, (a, b) in enumerate(zip(expected.steps, found.steps, strict=False)):
        if a != b:
            return f"step {i}: {a} became {b}"
    if len(expected.steps) != len(found.steps):
        return f"{len(expected.steps)} steps became {len(found.steps)}"
    for one, other in zip(expected.outcomes, found.outcomes, strict=True):
        if one != other:
            return f"{one} became {other}"
    for name in ("recomputed_tokens", "ticks", "gaps"):
        if getattr(expected, name) != getattr(found, name):
            return f"{name}: {getattr(expected, name)} became {getattr(found, name)}"
    return ""


def machine(kv_blocks: int, max_active: int, budget: int, **changes: Any) -> EngineProfile:
    """A machine with odd costs, so that no two shapes of a step take the same time."""
    profile = EngineProfile("test", "for tests", COST, max_active, budget, kv_blocks)
    return replace(profile, **changes)


def drawn(
    seed: int, count: int, rate_rps: float, prompt: int, output: int, topics: int = 0
) -> tuple[TraceRequest, ...]:
    """Requests by seed, some at the same moment; lengths in tokens are about those given.

    With `topics`, prompts begin alike for 512 tokens or several times as many.
    """
    rng, now_s = random.Random(seed), 0.0
    requests = []
    for _ in range(count):
        now_s += rng.choice((0.0, rng.expovariate(rate_rps / 2)))
        prompt_tokens = 1 + int(rng.lognormvariate(math.log(prompt), 0.8))
        blocks = -(-prompt_tokens // 512)
        prefix = tuple(rng.randrange(topics) for _ in range(blocks)) if topics else ()
        requests.append(
            TraceRequest(
                now_s, prompt_tokens, int(rng.expovariate(1 / output)), prefix=prefix,
                max_tokens=rng.choice((None, 2 * output)),
                slo_class=rng.choice(("interactive", "batch")),
                cached_tokens=rng.choice((0, 0, 0, prompt_tokens // 2)),
            )
        )  # fmt: skip
    return tuple(requests)


def prioritised(requests: Sequence[TraceRequest], seed: int) -> tuple[TraceRequest, ...]:
    """The requests with priorities by seed, a few alike, but none of one moment."""
    rng = random.Random(seed)
    moments = Counter(one.arrival_s for one in requests)
    return tuple(
        replace(one, priority=1000 * rng.randrange(4) + (i if moments[one.arrival_s] > 1 else 0))
        for i, one in enumerate(requests)
    )


def that_fit(requests: Sequence[TraceRequest], profile: EngineProfile) -> tuple[TraceRequest, ...]:
    """The requests whose prompt and answer the KV cache can hold: others wait for ever."""
    room = (profile.kv_blocks - 1) * profile.block_size
    return tuple(one for one in requests if one.prompt_tokens + max(1, one.output_tokens) <= room)
