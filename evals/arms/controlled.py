"""How does the control loop do? The arm `hmas`, and without the model or the long horizon.

`rules-only` has neither model nor twin: rule agents, and a policy by the rule table.
`twin-only` has neither model nor rule table: the twin tries every allowed policy.
"""

from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine
from evals.result.metrics import CaseRun
from evals.result.recording import RecordedEngine
from evals.suite.arms import controller_config

RULES_ONLY: dict[str, object] = {"model.enabled": False, "twin.enabled": False}
TWIN_ONLY: dict[str, object] = {
    "model.enabled": False,
    "control.use_rule_table": False,
}


def run_hmas(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    """The whole loop, on the engine's clock.

    Raises:
        CassetteError: the cassette lacks a reply, or could not be recorded.
    """
    return _run(case, {}, build_engine)


def run_rules_only(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    """What rules alone decide, on both horizons."""
    return _run(case, RULES_ONLY, build_engine)


def run_twin_only(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    """What the twin finds without anybody's proposals."""
    return _run(case, TWIN_ONLY, build_engine)


def _run(
    case: SimulatedCase, overrides: dict[str, object], build_engine: BuildEngine
) -> CaseRun:
    # Not above: the arms without a loop do not go through what it is made of.
    from evals.arms.cassette import Cassette
    from graphs.control_loop import ControlLoop
    from hmas_agents.twin.process import InProcess

    engine = build_engine(case.profile, case.settings, False)
    recorded = RecordedEngine(engine)
    options = case.controller
    config = controller_config(options, overrides, case.arm)
    label = f"{case.scenario} {case.load:g}x {case.arm.name}"
    with ControlLoop(
        recorded, config, options.ledger_path, run_label=label, forecaster=InProcess()
    ) as loop:
        cassette = None
        if options.cassette is not None and config.model.enabled:
            cassette = Cassette(options.cassette, record=options.model_url is not None)
            cassette.insert(loop)

        def tick() -> None:
            loop.tick()
            if cassette is not None:
                cassette.check()  # the agent may take a missing reply for the model's fault

        loop.short_tick()  # in charge before the first request, as the fixed arms are
        tickers = ((config.control.short_tick_s, tick),)
        outcomes = engine.run(case.requests, tickers, case.until_s)
    return case.ran(outcomes, engine.recomputed_tokens, recorded.decisions)
