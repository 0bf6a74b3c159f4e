"""Do decodes rest only where they can, and does that keep the paces that were promised?"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.batch import DecodeState
from serving.contracts import SLO, CostCoefficients, TraceRequest, with_classes
from serving.engines.profile import EngineProfile
from serving.engines.simulated import SimulatedEngine
from serving.lanes import DECODE_WORK
from serving.pacing import HASTE, TURNS, keeps_pace, resting
from serving.rules import with_rules
from serving.settings import EngineSettings
from serving.step_limits import AHEAD, PREFILL_FLOOR
from tests.serving.samples import decision, profile, shares
from tests.serving.simulation import Run, simulate, stock_limits

COST = CostCoefficients(0.005, 1e-4, 1e-3)  # a step of 20 decodes takes 25 ms
FAST_S, SLOW_S = 0.030, 0.120
states = st.lists(
    st.tuples(
        st.floats(-1, 5) | st.just(np.inf), st.floats(1, 500),
        st.sampled_from([0.0, 0.01, 0.03, 0.1]), st.booleans(),
    ),
    min_size=1, max_size=60,
)  # fmt: skip


def state_of(decodes, context: float = 200.0) -> DecodeState:
    """Of (slack_s, remaining, tpot_s, decoding)."""
    slack_s, remaining, tpot_s, decoding = np.array(decodes, dtype=float).reshape(-1, 4).T
    tokens = np.full(len(decodes), context)
    return DecodeState(decoding > 0, slack_s, remaining, tokens, tpot_s)


def batch(fast: int, slow: int) -> DecodeState:
    """Decodes that are due in the time of one token each."""
    return state_of([(FAST_S, 100, FAST_S, True)] * fast + [(SLOW_S, 100, SLOW_S, True)] * slow)


def rests(state: DecodeState, *, prompts_wait: bool = False, step: int = 0) -> np.ndarray:
    return resting(state, COST, 0.0, prompts_wait=prompts_wait, step=step)


def test_a_batch_that_fits_the_tightest_pace_decodes_whole():
    assert not rests(batch(fast=10, slow=10)).any()


def test_in_a_batch_that_does_not_the_slow_ones_make_room():
    mask = rests(batch(fast=10, slow=40))
    assert not mask[:10].any()
    # 28.5 ms until the fast ones are due 5% early; 5 are the base's, 10 theirs.
    assert (~mask[10:]).sum() == 13


def test_while_prompts_wait_decodes_get_what_their_paces_need_and_a_little_more():
    state = batch(fast=4, slow=8)
    assert not rests(state).any()
    mask = rests(state, prompts_wait=True)
    assert (~mask).sum() == int(HASTE * (4 + 8 * FAST_S / SLOW_S))


def test_who_is_alike_rests_for_nobody():
    assert not rests(batch(fast=0, slow=20)).any()
    assert not rests(batch(fast=15, slow=0), prompts_wait=True).any()


def test_who_has_no_pace_to_keep_takes_turns():
    state = state_of([(FAST_S, 100, FAST_S, True)] * 15 + [(np.inf, 100, 0.0, True)] * 20)
    served = np.zeros(35, int)
    for step in range(TURNS):
        served += ~rests(state, step=step)
    assert served[:15].min() == TURNS
    assert served[15:].min() == 1


@hypothesis_settings(deadline=None)
@given(decodes=states, prompts_wait=st.booleans(), step=st.integers(0, 9))
def test_whatever_the_batch_the_next_due_go_and_enough_of_all(decodes, prompts_wait, step):
    state = state_of(decodes)
    mask = rests(state, prompts_wait=prompts_wait, step=step)
    assert not (mask & ~state.decoding).any(), "a prefill is not a decode that could rest"
    count = int(state.decoding.sum())
    assert count == 0 or (state.decoding & ~mask).sum() >= count / TURNS
    keeps = keeps_pace(state, COST)
    if not keeps.any():
        assert not mask.any()
    elif mask.any():
        due_s = state.slack_s - AHEAD * state.tpot_s
        goes = keeps & ~mask
        if goes.any() and (keeps & mask).any():
            assert due_s[goes].max() <= due_s[keeps & mask].min(), "the earliest due go"
        going_s = COST.base_s + COST.per_decode_s * (count - mask.sum())
        room_s = max(due_s[keeps].min(), 0.0) / (1 + PREFILL_FLOOR * prompts_wait)
        assert going_s <= room_s + 1e-9 or (count - mask.sum()) == -(-count // TURNS)


# -- on the simulator, two tenants that were promised different paces -----------------------

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
