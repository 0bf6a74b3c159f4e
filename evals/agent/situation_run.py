"""How are situations of suites gathered, learnt from, and put to every contender?

First the development half of each suite, with what each setting is worth; then what is learnt from
it; then the test half. Rows are kept in a file for each suite, half and seed, so that a run with
more seeds goes on from one with fewer. Called by `hmas eval situations`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from evals.agent.learners import Learnt, Seen
from evals.agent.situations import SETTINGS, Row, rows_of
from evals.arms.case import SimulatedCase
from evals.machines.profile_file import machine_of
from evals.progress import CaseProgress
from evals.requests.scenario import build_workloads
from evals.result.run_result import git_state
from evals.sim.suite_run import RunOptions, all_cases
from evals.sim.workers import Workers
from evals.suite.arms import ControllerOptions
from evals.suite.suite import Suite
from evals.suite.toml_file import SuiteError
from evals.suite.traffic_spec import Half

LEAST_SEEDS = 2  # to learn from: what is learnt is judged on seeds that it has not seen


@dataclass(frozen=True, slots=True)
class Kept:
    """One file of rows, and where they come from.

    Attributes:
        commit: of the code.
        learnt_from: so many seeds of the development half; 0 of that half itself.
        sources: of the requests: a line for each trace or kind of tenants.
    """

    commit: str
    learnt_from: int
    sources: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The situations of one suite: of the test half, by seed."""

    suite: Suite
    learnt: Learnt
    development: int  # situations that were learnt from
    by_seed: dict[int, Kept]


_ADAPTER = TypeAdapter(Kept)


def run_situations(
    suites: Sequence[Suite], seeds: int, learn_from: int, folder: Path, jobs: int,
    progress: CaseProgress,
) -> list[Found]:  # fmt: skip
    """Gather what `folder` lacks, on both halves; what is there now.

    Args:
        suites: on their first machine.
        seeds: of the test half, from 0 on.
        learn_from: so many of the development half, at least LEAST_SEEDS.
        folder: of the rows.
        jobs: worker processes; 0: one per core.
        progress: told of each case.

    Raises:
        SuiteError, TraceError, WorkloadError: a suite cannot be run, or a file of the folder read.
        WorkerError: a case failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with Workers(jobs, progress) as workers:
        for suite in suites:

            def of(
                half: Half, seed: int, learnt: Learnt | None = None, suite: Suite = suite
            ) -> Kept:
                file = folder / f"{suite.name}-{half}-{seed}.json"
                return _kept(file, suite, half, seed, learnt, learn_from, workers, progress)

            seen = [row for seed in range(learn_from) for row in of("development", seed).rows]
            learnt = Learnt.of(seen_of(seen))
            tested = {seed: of("test", seed, learnt) for seed in range(seeds)}
            found.append(Found(suite, learnt, len(seen), tested))
    return found


def seen_of(rows: Sequence[Row]) -> Seen:
    """Rows as arrays, to learn from."""
    return Seen(
        np.array([list(row.states.values()) for row in rows]),
        np.array([row.worths for row in rows]), np.array([row.seed for row in rows]), SETTINGS,
    )  # fmt: skip


def _kept(
    file: Path, suite: Suite, half: Half, seed: int, learnt: Learnt | None, learn_from: int,
    workers: Workers, progress: CaseProgress,
) -> Kept:  # fmt: skip
    """The rows of one seed: of the file, or new ones where it has none from the same seeds."""
    learnt_from = 0 if learnt is None else learn_from
    if file.is_file():
        try:
            kept = _ADAPTER.validate_json(file.read_bytes())
        except ValidationError as error:
            raise SuiteError(f"{file}: {error.errors()[0]['msg']}: delete it") from error
        if kept.learnt_from == learnt_from:
            return kept
    one = suite.model_copy(update={"half": half, "seeds": (seed,), "arms": ("start",)})
    profile = machine_of(one)
    workloads = build_workloads(one, None, {one.profile: profile.max_model_len}, progress.warn)
    options = RunOptions(0, ControllerOptions())
    cases = all_cases(workers, one, workloads, {one.profile: profile}, options)
    rows = workers.run(
        rows_of, [(case, learnt) for case in cases], lambda job: _title(job[0], half),
        lambda job, rows: f"{_title(job[0], half)}: {len(rows)} situations",
    )  # fmt: skip
    commit = str(git_state().get("commit", ""))[:12]
    # Without the place in the trace, which is another one for each seed.
    sources = (each.provenance.rpartition(", ")[0] or each.provenance for each in workloads)
    taken = tuple(row for each in rows for row in each)
    kept = Kept(commit, learnt_from, tuple(dict.fromkeys(sources)), taken)
    file.write_bytes(_ADAPTER.dump_json(kept))
    return kept


def _title(case: SimulatedCase, half: Half) -> str:
    return f"{case.scenario} {case.load:g}x seed {case.seed}, {half} half"
