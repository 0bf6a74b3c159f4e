"""What is the most that a search finds, knowing all arrivals and lengths? `clairvoyant`.

A reachable reference between H-MAS and the upper bound of `evals.sim.bound`. The search begins
with the best run of the arms in `STARTS` on the very requests. From then on it serves only requests
that it keeps, in an order of its own, under one set of rules for the whole run, and with true
lengths. It tries to add requests that were dropped, the cheap ones more often, to move some in the
order, and other rules. What is not worse is kept, and what missed its SLOs is dropped: it would
only cost. `EVALUATIONS` runs, fewer where they would serve more than `MOST_SERVED` requests in all;
the same for a seed. It is never below the arms that it begins with.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evals.arms.case import Counts, SimulatedCase
from evals.arms.engine import build_simulated
from evals.arms.fixed import serve_fixed
from evals.arms.stock import deadline_ms
from evals.result.metrics import CaseRun, Facts
from evals.suite.arms import parse_arm
from evals.suite.contenders import ARMS
from serving.contracts import TraceRequest
from serving.engines.offered import columns, longest_answer, promised_to, track_of
from serving.engines.served import Served

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

# What does best of each kind; SGLang's engine is another one. The two last where they were tuned.
STARTS = (
    "vllm-fcfs", "vllm-priority-deadline", "start", "oracle-lengths", "rules-only", "hmas",
    "hindsight-fixed", "vllm-tuned", "tree",
)  # fmt: skip
EVALUATIONS, MOST_SERVED = 300, 1_500_000
_RULES = ("+slack+serial", "+slack", "", "+slack+serial+pace", "+slack+serial+active={half}")
_MOVED_S = 2.0  # how far a request is moved in the order: the deviation
_UNCOUNTED = 1e-3  # what one that does not count is worth: of equals rather serve it
_MOST_ADDED, _SMALLER = 0.3, 0.97  # share of those dropped; after a try that brought nothing


def run_clairvoyant(case: SimulatedCase, run_case: Callable[[SimulatedCase], CaseRun]) -> CaseRun:
    """The best run found, be it one of those that the search begins with.

    `run_case` runs another arm on the case's requests.
    """
    runs = [run_case(replace(case, arm=parse_arm(name))) for name in starts(case)]
    best = max(runs, key=case.met)
    evaluations = max(1, min(EVALUATIONS, MOST_SERVED // len(case.requests)))
    found = Search(case, best).improved(evaluations)
    chosen: Facts = {"start": best.arm, "start_met": case.met(best), "evaluations": evaluations}
    run = found if case.met(found) > case.met(best) else best
    return replace(run, arm=case.arm.name, chosen=chosen)


def starts(case: SimulatedCase) -> list[str]:
    """The arms that the search begins with."""
    return [name for name in STARTS if case.tuned is not None or not ARMS[name].tuned]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which requests are served, in which order (least first), and under which rules."""

    kept: Mask
    order: Floats
    rules: str


class Search:
    """A local search over plans of one case; what `start`, a run of it, met is kept at first."""

    def __init__(self, case: SimulatedCase, start: CaseRun) -> None:
        self._case, self._rng = case, np.random.default_rng(case.seed)
        longest = longest_answer(case.requests)
        self._requests = [
            replace(one, max_tokens=one.max_tokens or longest) for one in case.requests
        ]
        self._targets_ms = case.targets_ms()
        cost = case.profile.cost
        self._work_s = np.array(
            [
                one.prompt_tokens * cost.per_prefill_token_s
                + one.output_tokens * (cost.per_decode_s + cost.base_s / 32)
                for one in case.requests
            ]
        )
        self._worth = np.where(case.counted, 1.0, _UNCOUNTED)
        due_s = [deadline_ms(one, case.settings) / 1000 for one in case.requests]
        self._plan = Plan(
            np.array([one.met for one in start.outcomes]), np.array(due_s), _RULES[0]
        )

    def improved(self, evaluations: int) -> CaseRun:
        """The best plan's run after so many runs."""
        best = base = self._plan
        met = self._met(best)
        share = _MOST_ADDED
        for i in range(1, evaluations):
            if i < len(_RULES):
                tried = replace(base, rules=_RULES[i])
            else:
                tried = self._changed(replace(base, kept=met), share)
            now = self._met(tried)
            better = self._worth @ now - self._worth @ met
            share = min(share * 1.5, _MOST_ADDED) if better > 0 else share * _SMALLER
            if better >= 0:
                best, met = tried, now
                base = replace(tried, kept=now)
        return self._run(best)

    def _changed(self, plan: Plan, share: float) -> Plan:
        kept, order, rules = plan.kept.copy(), plan.order, plan.rules
        dropped = np.flatnonzero(~kept)
        if len(dropped):
            count = min(len(dropped), max(1, round(share * len(dropped))))
            chance = 1 / self._work_s[dropped]
            kept[self._rng.choice(dropped, count, replace=False, p=chance / chance.sum())] = True
        if self._rng.random() < 0.5:
            moved = self._rng.random(len(order)) < share
            order = order + moved * self._rng.normal(0.0, _MOVED_S, len(order))
        if self._rng.random() < 0.1:
            rules = _RULES[int(self._rng.integers(len(_RULES)))]
        return Plan(kept, order, rules)

    def _met(self, plan: Plan) -> Mask:
        """Which requests meet their SLOs; those that are dropped do not."""
        rows = np.flatnonzero(plan.kept)
        met = np.zeros(len(plan.kept), np.bool_)
        if len(rows):
            met[rows] = self._served(plan, rows)[0].met(self._targets_ms[rows])
        return met

    def _run(self, plan: Plan) -> CaseRun:
        """The run of a plan; what it drops is rejected when it arrives."""
        rows = np.flatnonzero(plan.kept)
        outcomes = [
            track_of(i, one, one.max_tokens or 1, promised_to(one, self._case.settings))
            .outcome(i, "rejected", one.arrival_s)
            for i, one in enumerate(self._requests)
        ]  # fmt: skip
        if not len(rows):
            return self._case.ran(outcomes)
        served, kept, engine = self._served(plan, rows)
        for row, outcome in zip(rows, served.outcomes(kept, self._case.settings), strict=True):
            outcomes[row] = replace(outcome, seq=int(row), request_id=f"r{row}")
        return self._case.ran(outcomes, engine)

    def _served(
        self, plan: Plan, rows: NDArray[np.int64]
    ) -> tuple[Served, list[TraceRequest], Counts]:
        case = self._case
        ranks = np.empty(len(rows), np.int64)
        ranks[np.argsort(plan.order[rows], kind="stable")] = np.arange(len(rows))
        requests = [
            replace(self._requests[row], priority=rank)
            for row, rank in zip(rows.tolist(), ranks.tolist(), strict=True)
        ]
        engine = build_simulated(case.profile, case.settings, False)
        engine.tell_lengths()
        rules = plan.rules.format(half=max(1, case.profile.max_active_requests // 2))
        arm, workload = parse_arm(f"fixed-priority{rules}"), columns(requests, case.profile)
        return serve_fixed(engine, case, arm, workload, requests), requests, engine

