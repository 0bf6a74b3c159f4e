"""What do the arms that choose in hindsight need, and what do they come to?

`hindsight-fixed` is the best fixed arm on the very requests that count, of those that the suite
has, or of CANDIDATES if it has none; `hindsight-switching` switches among the best three of
them, or stays with the best where that pays more. A candidate is a case like any other, run
once, whoever asks for it. Called by `evals.runner`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from evals.arms import ALL_RULES, parse_arm
from evals.case_store import FinishedCase
from evals.jobs import CaseId, Job
from serving.policies import POLICIES

FIXED, SWITCHING = "hindsight-fixed", "hindsight-switching"
SHORTLIST = 3
# No set of rules is always the best one. The simpler ones first: of equals the first is taken.
RULE_SETS = ("", "+slack", "+slack+serial", "+slack+serial+triage", f"+{ALL_RULES}")
CANDIDATES = tuple(f"fixed-{policy}{rules}" for rules in RULE_SETS for policy in POLICIES)

Finished = Mapping[CaseId, FinishedCase]


def chooses(job: Job) -> bool:
    """Whether this job's arm chooses in hindsight."""
    return job.case.arm.name in (FIXED, SWITCHING)


def candidate_names(jobs: Iterable[Job]) -> tuple[str, ...]:
    """Names of the fixed arms of a suite's jobs, or CANDIDATES."""
    fixed = dict.fromkeys(job.case.arm.name for job in jobs if job.case.arm.kind == "fixed")
    return tuple(fixed) or CANDIDATES


def candidates_of(jobs: Iterable[Job], names: Iterable[str]) -> list[Job]:
    """What has to be run before the jobs among these that choose; no outcomes are kept of it."""
    found = (_as(job, name) for job in jobs if chooses(job) for name in names)
    return list({job.id: replace(job, keep_outcomes=False) for job in found}.values())


def switching_of(jobs: Iterable[Job], names: Sequence[str], finished: Finished) -> list[Job]:
    """The jobs that switch, each with the shortlist that its candidates came to."""
    return [
        replace(job, case=replace(job.case, shortlist=_ranked(job, names, finished)[:SHORTLIST]))
        for job in jobs
        if job.case.arm.name == SWITCHING
    ]


def conclude(job: Job, names: Sequence[str], finished: Finished) -> FinishedCase:
    """What a job that chooses comes to: switching where it ran and paid, or the best fixed arm."""
    best_name = _ranked(job, names, finished)[0]
    best, switching = finished[_as(job, best_name).id], finished.get(job.id)
    if switching is not None and _goodput_rps(switching) > _goodput_rps(best):
        return switching
    name, chosen = job.case.arm.name, {"fixed": best_name}
    return FinishedCase(
        best.result | {"arm": name, "chosen": chosen}, replace(best.run, arm=name, chosen=chosen)
    )


def _ranked(job: Job, names: Sequence[str], finished: Finished) -> tuple[str, ...]:
    """Candidates by goodput, best first, of equals the first; all arms of a case share a span."""
    goodput = {name: _goodput_rps(finished[_as(job, name).id]) for name in names}
    return tuple(sorted(names, key=lambda name: -goodput[name]))


def _as(job: Job, name: str) -> Job:
    """The job of another arm on the same requests."""
    return replace(job, case=replace(job.case, arm=parse_arm(name)))


def _goodput_rps(case: FinishedCase) -> float:
    return float(case.result["goodput_rps"])
