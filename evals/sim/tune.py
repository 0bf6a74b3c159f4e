"""What do the arms that learn find on a suite's development half? Called by `hmas eval tune`.

For each machine of the suite: vLLM's options, the best fixed arm, a threshold and a tree. Nothing
else than the development half is read, whatever half the suite reports on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np

from evals.arms.case import SimulatedCase
from evals.arms.engine import build_simulated
from evals.arms.fixed import FIXED_ARMS, run_fixed
from evals.arms.states import STATES
from evals.progress import CaseProgress
from evals.requests.offer import Workload
from evals.result.run_result import git_state
from evals.sim import tune_stock, tune_tree
from evals.sim.jobs import RunOptions
from evals.sim.suite_run import all_cases
from evals.sim.workers import Workers
from evals.suite.arms import parse_arm
from evals.suite.contenders import STOCK
from evals.suite.suite import Suite
from evals.suite.tuned import DEVELOPMENT, TunedFile, TunedMachine
from serving.engines.profile import EngineProfile

Answer = TypeVar("Answer")
Job = tuple[SimulatedCase, Any]

FINALISTS = 6  # the best fixed arms, among which threshold and tree choose


def for_tuning(suite: Suite, seeds: int) -> Suite:
    """The suite on its development half; one arm, since which is run is not the suite's matter."""
    blocks = tuple(range(seeds))
    return suite.model_copy(update={"half": DEVELOPMENT, "seeds": blocks, "arms": (STOCK,)})


def tune(
    suite: Suite,
    workloads: Sequence[Workload],
    profiles: Mapping[str, EngineProfile],
    options: RunOptions,
    progress: CaseProgress,
) -> TunedFile:
    """Tune on these workloads.

    Args:
        suite: as `for_tuning` makes it.
        workloads: of it.
        profiles: the machines.
        options: how to run; the configuration is that of the arms with states.
        progress: gets a line per job.

    Raises:
        ValueError: a workload is of another half.
        WorkerError: a job failed.
    """
    if strange := [each.scenario for each in workloads if each.half != DEVELOPMENT]:
        raise ValueError(f"{strange[0]}: not of the half {DEVELOPMENT!r}")
    with Workers(options.jobs, progress) as workers:
        cases = all_cases(workers, suite, workloads, profiles, options)
        machines = {
            name: Tuner(workers, [one for one in cases if one.profile.name == profile.name]).found()
            for name, profile in profiles.items()
        }
    return TunedFile(
        suite=suite.name, half=suite.half, seeds=suite.every_seed,
        commit=str(git_state().get("commit", "unknown")),
        date=datetime.now(UTC).date().isoformat(), machines=machines,
    )  # fmt: skip


def fixed_worths(job: tuple[SimulatedCase, tuple[str, ...]]) -> list[float]:
    """For each fixed arm the share of a case's counted requests that met their SLOs."""
    case, names = job
    arms = [replace(case, arm=parse_arm(name)) for name in names]
    return [case.share_met(run_fixed(arm, build_simulated)) for arm in arms]


class Tuner:
    """Tunes for one machine.

    Args:
        workers: run the jobs.
        cases: of the machine.
    """

    def __init__(self, workers: Workers, cases: Sequence[SimulatedCase]) -> None:
        self._workers, self._cases = workers, cases

    def found(self) -> TunedMachine:
        """What pays most: means over cases, each of which weighs the same."""
        stock, limits, met = tune_stock.tune_stock(self._cases, self._stock_worths)
        jobs = [(case, FIXED_ARMS) for case in self._cases]
        worths = self._run(fixed_worths, jobs, f"{len(FIXED_ARMS)} fixed arms")
        means = np.mean(worths, axis=0)
        ranked = [FIXED_ARMS[i] for i in np.argsort(-means, kind="stable")]
        finalists = tuple(ranked[:FINALISTS])
        jobs = [(case, finalists) for case in self._cases]
        rows = self._run(tune_tree.rows_of, jobs, "states")
        trees = tuple(tune_tree.trees(rows, STATES, finalists))
        switched = self._run(
            tune_tree.worth_of, [(case, trees) for case in self._cases], "trees"
        )
        shares = np.mean(switched, axis=0)
        deep = 1 + int(np.argmax(shares[1:]))
        return TunedMachine(
            stock=stock, limits=limits, best_fixed=ranked[0], threshold=trees[0], tree=trees[deep],
            met={
                "vllm-tuned": met, "best-fixed": float(means.max()),
                "threshold": float(shares[0]), "tree": float(shares[deep]),
            },
        )  # fmt: skip

    def _stock_worths(self, jobs: Sequence[tune_stock.Job]) -> list[list[float]]:
        return self._run(tune_stock.worth_of, jobs, f"{len(jobs[0][1])} settings of stock vLLM")

    def _run(
        self, function: Callable[[Job], Answer], jobs: Sequence[Job], what: str
    ) -> list[Answer]:
        def title(job: Job) -> str:
            return f"{job[0].scenario} {job[0].load:g}x seed {job[0].seed}: {what}"

        return self._workers.run(function, jobs, title, lambda job, _: title(job))
