"""How is `hmas eval tune` called? Tunes on the development half, and writes the file."""

from pathlib import Path
from typing import Annotated

import typer


def tune(
    suite_file: Annotated[
        Path, typer.Argument(metavar="SUITE.toml", help="For example evals/suites/drift.toml.")
    ],
    *,
    seeds: Annotated[
        int, typer.Option(min=1, help="Blocks of the development half to tune on.")
    ] = 5,
    jobs: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")] = 0,
    config: Annotated[
        Path | None, typer.Option(help="Controller configuration of the arms with states (TOML).")
    ] = None,
) -> None:
    """Tune the arms that learn, on a suite's development half only.

    hmas eval tune evals/suites/drift.toml

    Writes evals/tuned/SUITE.toml: options of stock vLLM, the best fixed arm, a threshold and a
    tree, for each machine of the suite. It is read by the arms vllm-tuned, best-fixed, threshold
    and tree.
    """
    from evals.machines.profile_file import machine_of
    from evals.progress import CaseProgress
    from evals.requests.scenario import build_workloads
    from evals.sim.jobs import RunOptions
    from evals.sim.tune import for_tuning
    from evals.sim.tune import tune as run_tuning
    from evals.suite.arms import ControllerOptions
    from evals.suite.suite import load_suite
    from evals.suite.tuned import write_tuned

    suite = for_tuning(load_suite(suite_file), seeds)
    profiles = {name: machine_of(suite, name) for name in suite.profiles}
    options = RunOptions(jobs, ControllerOptions(config_path=config))
    with CaseProgress() as progress:
        longest = {name: profile.max_model_len for name, profile in profiles.items()}
        workloads = build_workloads(suite, None, longest, progress.warn)
        found = run_tuning(suite, workloads, profiles, options, progress)
        progress.note(f"tuned: {write_tuned(found)}")
