"""How does H-MAS do, whole and in parts? The control loop ticks on the engine's clock.

`evals.suite.contenders` says what each of these arms leaves out.
"""

from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine, run_on
from evals.arms.operator import as_promised, operator_of
from evals.result.metrics import CaseRun
from evals.result.recording import RecordedEngine
from evals.suite.arms import controller_config


def run_loop(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    """The loop of the case's arm.

    Raises:
        CassetteError: the cassette lacks a reply, or could not be recorded.
    """
    # Not above: the arms without a loop do not go through what it is made of.
    from evals.arms.cassette import Cassette
    from graphs.control_loop import ControlLoop
    from hmas_agents.twin.process import InProcess

    engine = build_engine(case.profile, case.settings, False)
    recorded = RecordedEngine(engine)
    options = case.controller
    config = controller_config(options, {}, case.arm)
    label = f"{case.scenario} {case.load:g}x {case.arm.name}"
    with (
        operator_of(case) as (ledger_path, speak),
        ControlLoop(
            recorded, config, ledger_path, run_label=label, forecaster=InProcess()
        ) as loop,
    ):  # fmt: skip
        cassette = None
        if options.cassette is not None and config.model.enabled:
            cassette = Cassette(options.cassette, record=options.model_url is not None)
            cassette.insert(loop)

        def tick() -> None:
            now_s = engine.now()
            if case.arm.name == "hmas-announced":  # what has come is no more than what is seen
                loop.expect([one for one in case.expected if one.from_s > now_s])
            speak(now_s)
            loop.tick()
            if cassette is not None:
                cassette.check()  # the agent may take a missing reply for the model's fault

        speak(0.0)
        loop.short_tick()  # in charge before the first request, as the fixed arms are
        tickers = ((config.control.short_tick_s, tick),)
        run = run_on(engine, case, tickers, recorded.decisions)
    return as_promised(case, run) if case.said else run
