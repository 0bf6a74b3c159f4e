"""How does a case set come about? Situations from simulated runs and from ledgers, then labels.

Deterministic by the suite and its seeds, whatever the number of workers. Called by
`hmas eval agent build`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from statistics import fmean

from evals.agent.case_suite import CaseSuite, load_case_suite
from evals.agent.labels import Question, label_all, unlabelled
from evals.agent.scenes import scenes_of, take
from evals.agent.scoring import balance
from evals.progress import CaseProgress
from evals.requests.blocks import place
from evals.result.run_result import git_state
from evals.sim.workers import Workers
from hmas_agents.case_file import Case, Plan, candidates_of, labelled, read_cases, write_cases
from hmas_agents.cases import cases_of
from hmas_agents.ledger.reader import LedgerReader

LABEL_SEED, TWIN_SEED = 1000, 2000  # no future is in both


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build.

    Attributes:
        count: cases wanted; the runs share them as evenly as they can.
        minutes: of each run, instead of the suite's.
        ledgers: of the control loop, whose long decisions become cases too.
        held_out: scenarios (ledgers: labels of runs) held out beside the suite's.
    """

    suite_file: Path
    count: int
    out: Path
    jobs: int
    minutes: float | None = None
    ledgers: tuple[Path, ...] = ()
    held_out: tuple[str, ...] = ()


def build(request: BuildRequest, progress: CaseProgress) -> list[Case]:
    """Build, label and write a case set; what is in the file.

    Raises:
        SuiteError, LedgerError, CaseError: an input cannot be used.
        WorkerError: a simulation failed.
    """
    suite = load_case_suite(request.suite_file)
    if request.minutes is not None:
        suite = suite.with_minutes(request.minutes)
    recorded = [case for path in request.ledgers for case in _from_ledger(path)]
    taken = _taken(suite, request, progress) if request.count > len(recorded) else []
    cases = [*recorded, *evenly(taken, request.count - len(recorded))]
    cases = [_placed(case, {*suite.held_out, *request.held_out}) for case in cases]
    write_cases(request.out, cases)
    cases = read_cases(request.out)  # labels belong to what the file says, to the digit
    cases = _labelled(cases, suite, request, progress)
    write_cases(request.out, cases)
    return cases


def evenly(runs: Sequence[Sequence[Case]], count: int) -> list[Case]:
    """So many cases, the runs taking turns; within a run they are spread over its time."""
    order = [[run[place(i, len(run))] for i in range(len(run))] for run in runs]
    order = [order[place(k, len(runs))] for k in range(len(runs))]
    turns = [case for turn in zip_longest(*order) for case in turn if case is not None]
    chosen = {case.id for case in turns[: max(0, count)]}
    return [case for run in runs for case in run if case.id in chosen]


def describe(cases: Sequence[Case]) -> list[str]:
    """Lines on how the labels are balanced, for the one who built them."""
    lines = []
    for split in ("development", "held_out"):
        of_split = [case for case in cases if case.split == split]
        if not of_split:
            continue
        ranked = sorted(balance(of_split)[split].items(), key=lambda item: -item[1])
        scenarios = len({case.scenario for case in of_split})
        lines.append(
            f"{split}: {len(of_split)} cases of {scenarios} scenarios; best policy: "
            + ", ".join(f"{name} {number}" for name, number in ranked)
        )
        spread = fmean(_worth(case) for case in of_split)
        lines.append(f"{split}: the best label is on average {spread:.3f} above the mean one")
    return lines


def _worth(case: Case) -> float:
    means = [fmean(draws) for draws in case.labels.values()]
    return max(means) - fmean(means)


def _taken(suite: CaseSuite, request: BuildRequest, progress: CaseProgress) -> list[list[Case]]:
    scenes = scenes_of(suite)
    progress.note(f"taking situations from {len(scenes)} simulated runs")
    with Workers(request.jobs, progress) as workers:
        return workers.run(
            take, scenes, lambda scene: scene.title,
            lambda scene, cases: f"{scene.title}: {len(cases)} situations",
        )  # fmt: skip


def _from_ledger(path: Path) -> list[Case]:
    with LedgerReader(path) as reader:
        return list(cases_of(reader, None))


def _placed(case: Case, held_out: Collection[str]) -> Case:
    commit = str(git_state().get("commit", ""))[:12]
    return replace(
        case,
        split="held_out" if case.scenario in held_out else "development",
        provenance=case.provenance | ({"commit": commit} if commit else {}),
    )


def _labelled(
    cases: Sequence[Case], suite: CaseSuite, request: BuildRequest, progress: CaseProgress
) -> list[Case]:
    """Labels and, on other futures, what a twin would go by."""
    plan = Plan(suite.draws, LABEL_SEED, suite.horizon_s)
    questions = [
        Question(case.id, case.situation, unlabelled(case, candidates_of(case.allowed)), plan)
        for case in cases
    ]
    if suite.twin_draws:
        other = replace(plan, draws=suite.twin_draws, seed=TWIN_SEED)
        questions += [
            Question(f"{case.id} (twin)", case.situation, candidates_of(case.allowed), other)
            for case in cases
        ]
    done = label_all(questions, jobs=request.jobs, progress=progress)
    twins = done[len(cases) :] or [{}] * len(cases)
    return [
        replace(labelled(case, labels, plan), twin=twin)
        for case, labels, twin in zip(cases, done, twins, strict=False)
    ]
