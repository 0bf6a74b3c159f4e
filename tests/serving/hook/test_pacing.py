"""Do decodes rest only where they can, and does that keep the paces that were promised?"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from serving.contracts import SLO, CostCoefficients, TraceRequest, with_classes
from serving.contracts.rules import with_rules
from serving.contracts.settings import EngineSettings
from serving.core.tenants import DECODE_WORK
from serving.engines.profile import EngineProfile
from serving.engines.simulated import SimulatedEngine
from tests.serving.samples import decision, profile, shares
from tests.serving.simulation import Run, simulate, stock_limits

COST = CostCoefficients(0.005, 1e-4, 1e-3)  # a step of 20 decodes takes 25 ms
FAST_S, SLOW_S = 0.030, 0.120
MACHINE = replace(profile(4000), cost=COST)
SETTINGS = EngineSettings(
    contract=with_classes({
        "fast": SLO(ttft_ms=2000, tpot_ms=1e3 * FAST_S),
        "slow": SLO(ttft_ms=2000, tpot_ms=1e3 * SLOW_S),
    })
)


def requests(slow: int) -> list[TraceRequest]:
    """Chats at a steady rate, and long answers that pile up beside them."""
    chats = [TraceRequest(0.25 * i, 50, 40, "chat", "fast") for i in range(80)]
    long = [TraceRequest(0.3 * i, 50, 400, "long", "slow") for i in range(slow)]
    return sorted([*chats, *long], key=lambda request: request.arrival_s)


def under(
    rules: str,
    slow: int = 40,
    machine: EngineProfile = MACHINE,
    policy: str = "edf",
    watch: Callable[[SimulatedEngine], None] = lambda engine: None,
    settings: EngineSettings = SETTINGS,
) -> Run:
    limits = with_rules(stock_limits(machine), rules.split("+"))

    def before(engine: SimulatedEngine) -> None:
        engine.apply(decision(1, policy, ttl_s=80_000.0, limits=limits))
        watch(engine)

    return simulate(machine, requests(slow), settings=settings, before=before)


def met(run: Run, tenant: str) -> float:
    of_tenant = [outcome for outcome in run.outcomes if outcome.tenant == tenant]
    return sum(outcome.met for outcome in of_tenant) / len(of_tenant)


def test_it_keeps_the_chats_pace_beside_long_answers_at_no_cost_to_those():
    plain, paced = under("slack"), under("slack+pace")
    assert met(plain, "chat") < 0.5 < 0.9 < met(paced, "chat")
    assert met(paced, "long") >= met(plain, "long") > 0.9
    assert paced.served == plain.served == 120
    assert paced.engine.snapshot().rules["rested_decodes"] > 1000
    assert plain.engine.snapshot().rules["rested_decodes"] == 0


def test_alone_nobody_rests():
    run = under("slack+pace", slow=0)
    assert run.engine.snapshot().rules["rested_decodes"] == 0
    assert run.outcomes == under("slack", slow=0).outcomes


def test_the_cost_model_learns_from_paced_steps_what_it_learns_from_others():
    cost = under("slack+pace").engine.snapshot().cost
    assert abs(cost.per_decode_s / COST.per_decode_s - 1) < 0.1


def test_short_of_blocks_nobody_sits_out_and_everyone_is_served():
    """vLLM preempts whom it finds in the batch: those who sit out would be spared for nothing."""
    tight = replace(MACHINE, kv_blocks=150)
    run = under("slack+pace", machine=tight)
    assert run.preemptions > 3
    assert run.served == 120
    assert run.engine.snapshot().policy_errors == 0


def test_who_sits_out_keeps_the_place_in_the_batch():
    """The last one is vLLM's next victim, and those that sit out have the longest answers."""
    rested = []

    def watch(engine: SimulatedEngine) -> None:
        scheduler, schedule = engine.scheduler, engine.scheduler.schedule

        def watched():
            before = [request.request_id for request in scheduler.running]
            output = schedule()
            after = [request.request_id for request in scheduler.running]
            assert after[: len(before)] == before, "nobody is preempted here, new ones come last"
            rested.append(len(scheduler.control.hidden))
            return output

        scheduler.schedule = watched

    assert under("pace", policy="fcfs", watch=watch).preemptions == 0
    assert sum(rested) > 1000


@pytest.mark.parametrize("policy", ["edf", "fair"])
def test_a_decode_that_sits_out_a_step_costs_its_tenant_nothing(policy):
    """Lanes follow the tokens that each step gave, for `fair` and for floors."""
    floors = shares({}, {"long": 0.3}).tenants
    settings = SETTINGS.under(SETTINGS.contract.model_copy(update={"tenants": floors}))
    steps = []

    def watch(engine: SimulatedEngine) -> None:
        scheduler, update = engine.scheduler, engine.scheduler.update_from_output
        chat, long = (scheduler.queue.lanes.of(name) for name in ("chat", "long"))

        def watched(output, result):
            requests = dict(scheduler.requests)
            work, owed = (chat.work, long.work), long.owed
            outputs = update(output, result)
            tokens = Counter(
                requests[item.request_id].sampling_params.extra_args["tenant"]
                for client in outputs.values()
                for item in client.outputs
                if item.new_token_ids and item.finish_reason is None
            )  # the last token ends a request: its first one, given by the prefill, stands for it
            done = (DECODE_WORK * tokens["chat"], DECODE_WORK * tokens["long"])
            assert (chat.work - work[0], long.work - work[1]) == pytest.approx(done)
            due = max(0.0, owed + (0.3 * sum(done) - done[1]) * (long.waiting > 0))
            assert long.owed == pytest.approx(due)
            steps.append(long.waiting > 0)
            return outputs

        scheduler.update_from_output = watched

    busy = replace(MACHINE, max_active_requests=30)
    run = under("slack+pace", machine=busy, policy=policy, watch=watch, settings=settings)
    assert run.engine.snapshot().rules["rested_decodes"] > 500
    assert sum(steps) > 100, "the floor was owed in many of them"
