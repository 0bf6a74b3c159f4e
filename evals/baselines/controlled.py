"""How does the control loop do? The arms `hmas` and, without its long horizon, `rules-only`."""

from typing import TYPE_CHECKING

from evals.arms import controller_config
from evals.baselines.arm_run import ArmRun, OnProgress
from evals.cassette import Cassette
from evals.recording import RecordedEngine
from evals.sim_engine import BuildEngine

if TYPE_CHECKING:
    from evals.simulated_case import SimulatedCase

LONG_HORIZON_OFF = {"model.enabled": False, "twin.enabled": False}


def run_hmas(case: "SimulatedCase", on_progress: OnProgress, build_engine: BuildEngine) -> ArmRun:
    """The whole loop, on the engine's clock.

    Raises:
        CassetteError: the cassette lacks a reply, or could not be recorded.
    """
    from graphs.control_loop import ControlLoop

    engine = build_engine(case.profile, case.settings, False)
    recorded = RecordedEngine(engine)
    options, config = case.controller, controller_config(case.controller, {})
    label = f"{case.scenario} {case.load:g}x {case.arm.name}"
    with ControlLoop(recorded, config, options.ledger_path, run_label=label) as loop:
        cassette = None
        if options.cassette is not None:
            cassette = Cassette(options.cassette, record=options.model_url is not None)
            cassette.insert(loop)

        def long_tick() -> None:
            loop.long_tick()
            if cassette is not None:
                cassette.check()  # the agent may take a missing reply for the model's fault

        loop.short_tick()  # in charge before the first request, as the fixed arms are
        tickers = (
            (config.control.short_tick_s, loop.short_tick),
            (config.control.long_tick_s, long_tick),
        )
        outcomes = engine.run(case.requests, tickers, case.until_s, on_progress)
    return ArmRun(outcomes, recorded.decisions, engine.recomputed_tokens)


def run_rules_only(
    case: "SimulatedCase", on_progress: OnProgress, build_engine: BuildEngine
) -> ArmRun:
    """The start policy for the whole run; rule agents tune limits at each short tick."""
    from graphs.control_loop import ControlLoop

    engine = build_engine(case.profile, case.settings, False)
    recorded = RecordedEngine(engine)
    config = controller_config(case.controller, dict(LONG_HORIZON_OFF))
    with ControlLoop(recorded, config, None) as loop:
        loop.short_tick()
        tickers = ((config.control.short_tick_s, loop.short_tick),)
        outcomes = engine.run(case.requests, tickers, case.until_s, on_progress)
    return ArmRun(outcomes, recorded.decisions, engine.recomputed_tokens)
