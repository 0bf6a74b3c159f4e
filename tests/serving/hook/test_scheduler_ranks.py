"""Does the hook leave vLLM's data-parallel prefill balancing as it is?"""

import pytest

from serving.contracts import TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.simulated import SimulatedEngine
from tests.serving.samples import decision, profile


@pytest.mark.parametrize("policy", [None, "edf"], ids=["default", "edf"])
@pytest.mark.parametrize("stock", [True, False], ids=["stock", "hook"])
def test_a_throttled_step_puts_prefill_off_until_the_next_one(stock, policy):
    """vLLM asks each rank to prefill in the same steps: `schedule(throttle_prefills)`."""
    engine = SimulatedEngine(profile(), EngineSettings(), stock=stock)
    if policy and not stock:
        assert engine.apply(decision(1, policy)).accepted
    long = TraceRequest(0.0, 20, 50)
    engine._submit(0, long, 50)
    engine._step(None)  # r0 has its first token and decodes from here on
    engine._submit(1, long, 50)
    plain, steps = engine.scheduler.schedule, []

    def schedule(throttle: bool) -> None:
        engine.scheduler.schedule = lambda: plain(throttle)
        engine._step(lambda output: steps.append(dict(output.num_scheduled_tokens)))

    for throttle in (True, True, False, True):
        schedule(throttle)
    assert steps == [{"r0": 1}, {"r0": 1}, {"r0": 1, "r1": 20}, {"r0": 1, "r1": 1}]
