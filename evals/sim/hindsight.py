"""What do the arms that choose in hindsight need, and what do they come to?

`hindsight-fixed` is the best fixed arm on the very requests that count, of those that the suite
has, or of CANDIDATES if it has none; `hindsight-switching` switches among the best three of
them, or stays with the best where that pays more. A candidate is a case like any other, run
once, whoever asks for it. Called by `evals.sim.suite_run`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from evals.arms.case import CaseId, SimulatedCase
from evals.sim.jobs import FinishedCase
from evals.suite.arms import ALL_RULES, parse_arm
from serving.policies import POLICIES

FIXED, SWITCHING = "hindsight-fixed", "hindsight-switching"
SHORTLIST = 3
# No set of rules is always the best one. The simpler ones first: of equals the first is taken.
RULE_SETS = ("", "+slack", "+slack+serial", "+slack+serial+triage", f"+{ALL_RULES}")
CANDIDATES = tuple(f"fixed-{policy}{rules}" for rules in RULE_SETS for policy in POLICIES)

Finished = Mapping[CaseId, FinishedCase]


def chooses(case: SimulatedCase) -> bool:
    """Whether this case's arm chooses in hindsight."""
    return case.arm.name in (FIXED, SWITCHING)


def candidate_names(cases: Iterable[SimulatedCase]) -> tuple[str, ...]:
    """Names of the fixed arms of a suite's cases, or CANDIDATES."""
    fixed = dict.fromkeys(case.arm.name for case in cases if case.arm.kind == "fixed")
    return tuple(fixed) or CANDIDATES


def candidates_of(cases: Iterable[SimulatedCase], names: Iterable[str]) -> list[SimulatedCase]:
    """What has to be run before the cases among these that choose; no outcomes are kept of it."""
    found = (_as(case, name) for case in cases if chooses(case) for name in names)
    return list({case.id: replace(case, keep_outcomes=False) for case in found}.values())


def switching_of(
    cases: Iterable[SimulatedCase], names: Sequence[str], finished: Finished
) -> list[SimulatedCase]:
    """The cases that switch, each with the shortlist that its candidates came to."""
    return [
        replace(case, shortlist=_ranked(case, names, finished)[:SHORTLIST])
        for case in cases
        if case.arm.name == SWITCHING
    ]


def conclude(case: SimulatedCase, names: Sequence[str], finished: Finished) -> FinishedCase:
    """What a case that chooses comes to: switching where it ran and paid, or the best fixed arm."""
    best_name = _ranked(case, names, finished)[0]
    best, switching = finished[_as(case, best_name).id], finished.get(case.id)
    if switching is not None and _goodput_rps(switching) > _goodput_rps(best):
        return switching
    name, chosen = case.arm.name, {"fixed": best_name}
    return FinishedCase(
        best.result | {"arm": name, "chosen": chosen}, replace(best.run, arm=name, chosen=chosen)
    )


def _ranked(case: SimulatedCase, names: Sequence[str], finished: Finished) -> tuple[str, ...]:
    """Candidates by goodput, best first, of equals the first; all arms of a case share a span."""
    goodput = {name: _goodput_rps(finished[_as(case, name).id]) for name in names}
    return tuple(sorted(names, key=lambda name: -goodput[name]))


def _as(case: SimulatedCase, name: str) -> SimulatedCase:
    """The case of another arm on the same requests."""
    return replace(case, arm=parse_arm(name))


def _goodput_rps(case: FinishedCase) -> float:
    return float(case.result["goodput_rps"])
