"""Is the bound never below what the best of all schedules meets? Found by trying them all.

The optimum may do more than vLLM can: drop and recompute at will, pause what runs.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import pytest

from evals.sim.bound import upper_bound
from serving.contracts import SLO, CostCoefficients, TraceRequest, with_classes
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile

INSTANCES = 230
Held = tuple[int, int, int]  # of one request: tokens in the cache, shown, ms of the first one


@dataclass(frozen=True, slots=True)
class Instance:
    """Whole milliseconds everywhere, so that equal states meet in the search."""

    requests: tuple[TraceRequest, ...]
    slos: tuple[SLO, ...]
    cost_ms: tuple[int, int, int, int, int]
    profile: EngineProfile
    settings: EngineSettings
    drain_ms: int

    @property
    def until_ms(self) -> int:
        return ms(self.requests[-1].arrival_s) + self.drain_ms


def ms(seconds: float) -> int:
    return round(seconds * 1000)


def tiny(seed: int) -> Instance:
    rng = random.Random(seed)
    cost_ms = (
        rng.randint(1, 5), rng.randint(1, 3), rng.randint(0, 3), rng.choice((0, 0, 1)),
        rng.choice((0, 0, 1)),
    )  # fmt: skip
    count = rng.choice((2, 3, 3, 4))
    arrivals_ms = [0, *sorted(rng.randint(1, 12) for _ in range(count - 1))]
    slos = [
        SLO(
            ttft_ms=rng.choice((None, rng.randint(4, 30))),
            tpot_ms=rng.choice((None, rng.randint(2, 10))),
            e2e_ms=rng.choice((None, rng.randint(8, 50))),
        )
        for _ in range(count)
    ]
    requests = tuple(
        TraceRequest(at / 1000, rng.randint(1, 4), rng.randint(1, 3), slo_class=f"c{i}")
        for i, at in enumerate(arrivals_ms)
    )
    profile = EngineProfile(
        name="tiny", provenance="drawn", cost=CostCoefficients(*(c / 1000 for c in cost_ms)),
        max_active_requests=rng.randint(1, 3), token_budget=rng.randint(2, 4),
        kv_blocks=rng.randint(3, 6), block_size=2, max_model_len=64,
    )  # fmt: skip
    settings = EngineSettings(contract=with_classes({f"c{i}": slo for i, slo in enumerate(slos)}))
    return Instance(requests, tuple(slos), cost_ms, profile, settings, rng.randint(1, 30))


def optimum(instance: Instance) -> int:
    """Most requests that any schedule meets. What is not met need not be served at all."""
    everybody = range(len(instance.requests))
    for count in reversed(range(1, len(instance.requests) + 1)):
        if any(Search(instance, chosen).succeeds() for chosen in combinations(everybody, count)):
            return count
    return 0


class Search:
    """Can these requests all meet their SLOs? Depth first over every schedule of steps."""

    def __init__(self, instance: Instance, chosen: Sequence[int]) -> None:
        self.base, self.prefill, self.decode, self.context, self.square = instance.cost_ms
        self.profile, self.until = instance.profile, instance.until_ms
        self.requests = [instance.requests[i] for i in chosen]
        self.slos = [instance.slos[i] for i in chosen]
        self.arrivals = [ms(request.arrival_s) for request in self.requests]
        self.failed: set[tuple[int, tuple[Held, ...]]] = set()

    def succeeds(self) -> bool:
        return self._from(0, tuple((0, 0, 0) for _ in self.requests))

    def _from(self, now: int, state: tuple[Held, ...]) -> bool:
        if all(
            shown == r.output_tokens for (_, shown, _), r in zip(state, self.requests, strict=True)
        ):
            return True
        if (now, state) in self.failed or not self._hope(now, state):
            return False
        later = [at for at in self.arrivals if at > now]
        found = any(self._from(*after) for after in self._steps(now, state)) or (
            bool(later) and self._from(min(later), state)
        )
        if not found:
            self.failed.add((now, state))
        return found

    def _hope(self, now: int, state: tuple[Held, ...]) -> bool:
        """No deadline is lost even if only its own prompt were left, and a step per token."""
        for (computed, shown, first), r, slo, at in zip(
            state, self.requests, self.slos, self.arrivals, strict=True
        ):
            left = r.output_tokens - shown
            prompt = 0 if shown else self.prefill * (r.prompt_tokens - computed)
            end = max(now, at) + prompt + self.base * left
            if left > 1 and end - self.base >= self.until:
                return False
            if not shown and max(now, at) + prompt + self.base - at > (slo.ttft_ms or 1e9):
                return False
            if left and end - at > (slo.e2e_ms or 1e9):
                return False
            if left and shown and end - first > (slo.tpot_ms or 1e9) * (r.output_tokens - 1):
                return False
        return True

    def _steps(
        self, now: int, state: tuple[Held, ...], at: int = 0, tokens: int = 0, took: int = 0
    ) -> Iterator[tuple[int, tuple[Held, ...]]]:
        """Every step from here: choose for request `at`, then for those after it."""
        if at == len(state):
            if tokens and now < self.until and (ended := self._ended(now, state, took)):
                yield ended
            return
        computed, shown, first = state[at]
        request = self.requests[at]
        if shown == request.output_tokens or self.arrivals[at] > now:
            yield from self._steps(now, state, at + 1, tokens, took)
            return
        for before in {computed, 0}:
            needed = request.prompt_tokens + shown - before
            room = min(needed, self.profile.token_budget - tokens)
            for chunk in range(room, -1, -1):
                if chunk == 1 and before >= request.prompt_tokens:
                    more = self.decode + self.context * before
                else:
                    more = self.prefill * chunk + self.square * chunk * before
                shows = int(chunk == needed)
                # A first token at -1 is one of this step; `_ended` fills in when that is.
                after = (before + chunk, shown + shows, -1 if shows and not shown else first)
                moved = (*state[:at], after, *state[at + 1 :])
                yield from self._steps(now, moved, at + 1, tokens + chunk, took + more)

    def _ended(
        self, now: int, state: tuple[Held, ...], took: int
    ) -> tuple[int, tuple[Held, ...]] | None:
        """The state after a step, finished requests gone from the cache; None if impossible."""
        holding = [computed for computed, _, _ in state if computed]
        blocks = sum(-(-computed // self.profile.block_size) for computed in holding)
        if len(holding) > self.profile.max_active_requests or blocks > self.profile.kv_blocks:
            return None
        end = now + self.base + took
        after = []
        for (computed, shown, first), r, slo, at in zip(
            state, self.requests, self.slos, self.arrivals, strict=True
        ):
            first = end if first == -1 else first  # noqa: PLW2901
            if first == end and end - at > (slo.ttft_ms or 1e9):
                return None
            if shown == r.output_tokens and computed:
                if end - at > (slo.e2e_ms or 1e9):
                    return None
                if end - first > (slo.tpot_ms or 1e9) * (r.output_tokens - 1):
                    return None
                computed = first = 0  # noqa: PLW2901
            after.append((computed, shown, first))
        return end, tuple(after)


@pytest.fixture(scope="module")
def solved() -> list[tuple[Instance, int]]:
    return [(instance, optimum(instance)) for instance in map(tiny, range(INSTANCES))]


def bound_of(instance: Instance, work: float = 1.0) -> float:
    cost = CostCoefficients(*(c / 1000 * work for c in instance.cost_ms))
    profile = replace(instance.profile, cost=cost)
    return upper_bound(instance.requests, profile, instance.settings, instance.until_ms / 1000).met


def test_the_bound_is_never_below_the_best_schedule(solved):
    wrong = [
        (seed, best, bound_of(instance))
        for seed, (instance, best) in enumerate(solved)
        if bound_of(instance) < best - 1e-6
    ]
    assert wrong == []


def test_the_instances_tell_something(solved):
    """Neither can everything be met nor nothing, and the bound is often exact."""
    partly = [(instance, best) for instance, best in solved if 0 < best < len(instance.requests)]
    exact = sum(int(bound_of(instance) + 1e-6) == best for instance, best in solved)
    assert len(partly) >= INSTANCES // 4
    assert exact >= INSTANCES // 2


def test_a_bound_that_counts_work_twice_is_caught(solved):
    assert any(bound_of(instance, work=2.0) < best - 1e-6 for instance, best in solved)
