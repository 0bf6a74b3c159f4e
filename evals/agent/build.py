"""How does a case set come about? Situations from simulated runs and from ledgers, then labels.

Deterministic by the suite and its seeds, whatever the number of workers. Called by
`hmas eval agent build`.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from evals.agent.labels import Question, label_all, unlabelled
from evals.agent.scenes import CaseSuite, load_case_suite, scenes_of, take
from evals.progress import CaseProgress
from evals.requests.blocks import place
from evals.result.run_result import git_state
from evals.sim.workers import Workers
from hmas_agents.case_file import Case, Plan, candidates_of, labelled, read_cases, write_cases
from hmas_agents.cases import cases_of
from hmas_agents.ledger.reader import LedgerReader

LABEL_SEED, TWIN_SEED = 1000, 2000  # no future is in both


def build(
    suite_file: Path, count: int, out: Path, ledgers: Sequence[Path], jobs: int,
    progress: CaseProgress,
) -> list[Case]:  # fmt: skip
    """Build, label and write a case set; what is in the file.

    The runs share `count` as evenly as they can; long decisions of the `ledgers` come first.

    Raises:
        SuiteError, LedgerError, CaseError: an input cannot be used.
        WorkerError: a simulation failed.
    """
    suite = load_case_suite(suite_file)
    recorded = list[Case]()
    for path in ledgers:
        with LedgerReader(path) as reader:
            recorded += cases_of(reader, None)
    taken = _taken(suite, jobs, progress) if count > len(recorded) else []
    commit = str(git_state().get("commit", ""))[:12]
    cases = [
        replace(
            case,
            split="held_out" if case.scenario in suite.held_out else "development",
            provenance=case.provenance | ({"commit": commit} if commit else {}),
        )
        for case in (*recorded, *evenly(taken, count - len(recorded)))
    ]
    write_cases(out, cases)
    cases = read_cases(out)  # labels belong to what the file says, to the digit
    cases = _labelled(cases, suite, jobs, progress)
    write_cases(out, cases)
    return cases


def evenly(runs: Sequence[Sequence[Case]], count: int) -> list[Case]:
    """So many cases, the runs taking turns; within a run they are spread over its time."""
    order = [[run[place(i, len(run))] for i in range(len(run))] for run in runs]
    order = [order[place(k, len(runs))] for k in range(len(runs))]
    turns = [case for turn in zip_longest(*order) for case in turn if case is not None]
    chosen = {case.id for case in turns[: max(0, count)]}
    return [case for run in runs for case in run if case.id in chosen]


def _taken(suite: CaseSuite, jobs: int, progress: CaseProgress) -> list[list[Case]]:
    scenes = scenes_of(suite)
    progress.note(f"taking situations from {len(scenes)} simulated runs")
    with Workers(jobs, progress) as workers:
        return workers.run(
            take, scenes, lambda scene: scene.title,
            lambda scene, cases: f"{scene.title}: {len(cases)} situations",
        )  # fmt: skip


def _labelled(
    cases: Sequence[Case], suite: CaseSuite, jobs: int, progress: CaseProgress
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
    done = label_all(questions, jobs=jobs, progress=progress)
    twins = done[len(cases) :] or [{}] * len(cases)
    return [
        replace(labelled(case, labels, plan), twin=twin)
        for case, labels, twin in zip(cases, done, twins, strict=False)
    ]
