"""What do the arms that choose in hindsight need, and what do they come to?

`hindsight-fixed` is the best of CANDIDATES on the very requests that count; `hindsight-switching`
switches among the best three of them, or stays with the best where that pays more. A candidate
is a case like any other, run once, whoever asks for it. Called by `evals.runner`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from evals.arms import ALL_RULES, parse_arm
from evals.case_store import FinishedCase
from evals.jobs import CaseId, Job
from serving.policies import POLICIES

FIXED, SWITCHING = "hindsight-fixed", "hindsight-switching"
SHORTLIST = 3
# No set of rules is always the best one. Of equals the simpler arm is taken.
CANDIDATES = tuple(
    f"fixed-{policy}{rules}" for rules in ("", "+slack", f"+{ALL_RULES}") for policy in POLICIES
)

Finished = Mapping[CaseId, FinishedCase]


def chooses(job: Job) -> bool:
    """Whether this job's arm chooses in hindsight."""
    return job.case.arm.name in (FIXED, SWITCHING)


def candidates_of(jobs: Iterable[Job]) -> list[Job]:
    """What has to be run before the jobs among these that choose; no outcomes are kept of it."""
    found = (_as(job, name) for job in jobs if chooses(job) for name in CANDIDATES)
    return list({job.id: replace(job, keep_outcomes=False) for job in found}.values())


def switching_of(jobs: Iterable[Job], finished: Finished) -> list[Job]:
    """The jobs that switch, each with the shortlist that its candidates came to."""
    return [
        replace(job, case=replace(job.case, shortlist=tuple(_ranked(job, finished)[:SHORTLIST])))
        for job in jobs
        if job.case.arm.name == SWITCHING
    ]


def conclude(job: Job, finished: Finished) -> FinishedCase:
    """What a job that chooses comes to: switching where it ran and paid, or the best fixed arm."""
    best_name = _ranked(job, finished)[0]
    best, switching = finished[_as(job, best_name).id], finished.get(job.id)
    if switching is not None and _goodput_rps(switching) > _goodput_rps(best):
        return switching
    name, chosen = job.case.arm.name, {"fixed": best_name}
    return FinishedCase(
        best.result | {"arm": name, "chosen": chosen}, replace(best.run, arm=name, chosen=chosen)
    )


def _ranked(job: Job, finished: Finished) -> list[str]:
    """Candidates by goodput, best first; all arms of a case share one span."""
    goodput = {name: _goodput_rps(finished[_as(job, name).id]) for name in CANDIDATES}
    return sorted(CANDIDATES, key=lambda name: -goodput[name])


def _as(job: Job, name: str) -> Job:
    """The job of another arm on the same requests."""
    return replace(job, case=replace(job.case, arm=parse_arm(name)))


def _goodput_rps(case: FinishedCase) -> float:
    return float(case.result["goodput_rps"])
