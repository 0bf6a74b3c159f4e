"""Is each arm run as its name says, on an engine that is only a stand-in here?"""

import math
from dataclasses import replace

import pytest

from evals.arms import run_case
from evals.arms.case import SimulatedCase
from evals.machines.profile_file import load_profile
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.shapes import Span
from hmas_agents.config import ControlConfig
from serving.contracts import Ack, Limits
from serving.contracts.contract import SLO_CLASSES
from serving.contracts.rules import RULES, with_rules
from serving.contracts.settings import EngineSettings
from serving.policies import format_policy
from tests.evals.samples import offered, outcome
from tests.evals.small_cases import FakeSimulator, case

PROFILE = load_profile("a100_llama_8b")


def run(arm, engine):
    item = SimulatedCase(
        "s", 0.8, parse_arm(arm), offered(0.0, 5.0), PROFILE, EngineSettings(),
        Span(6.0, tail_s=119.0), ControllerOptions(),
    )  # fmt: skip
    built = []

    def build(profile, settings, stock):
        built.append(stock)
        return engine

    return run_case(item, build), built


def test_the_stock_arm_is_stock_vllm_untouched():
    engine = FakeSimulator()
    result, built = run("vllm-fcfs", engine)
    assert built == [True]
    assert engine.applied == []
    assert engine.ran == [(offered(0.0, 5.0), [], 125.0)]
    assert (result.scenario, result.load, result.arm) == ("s", 0.8, "vllm-fcfs")
    assert len(result.outcomes) == 2
    assert list(result.decisions) == []
    assert (result.preemptions, result.recomputed_tokens) == (1, 70)
    assert engine.gaps_of_s == (0.0, 6.0), "gaps of the tail do not count"
    assert result.itl_s["p99"] == pytest.approx(1e-4 * math.exp(3.005))


def test_a_fixed_arm_is_one_decision_under_stock_limits():
    engine = FakeSimulator()
    result, built = run("fixed-edf", engine)
    assert built == [False]
    assert [d.policy for d in engine.applied] == ["edf"]
    limits = engine.applied[0].limits
    assert (limits.max_active_requests, limits.token_budget) == (256, 2048)
    assert (limits.long_prefill_threshold, limits.prefill_share) == (0, 0)
    assert not limits.follow_slack
    assert [d.policy for d in result.decisions] == ["edf"]


@pytest.mark.parametrize(
    ("arm", "rules"),
    [("fixed-edf+slack+balance", ("slack", "balance")), ("fixed-edf+rules", tuple(RULES))],
)
def test_an_arm_with_rules_switches_these_on_and_no_others(arm, rules):
    engine = FakeSimulator()
    result, _ = run(arm, engine)
    assert engine.applied[0].policy == "edf"
    assert engine.applied[0].limits == with_rules(Limits(256, 2048), rules)
    assert result.arm == arm


def test_an_arm_with_parameters_decides_them_and_leaves_the_others_at_their_defaults():
    engine = FakeSimulator()
    result, _ = run("fixed-mlfq:levels=4+slack", engine)
    assert [(d.policy, d.params) for d in engine.applied] == [("mlfq", {"levels": 4.0})]
    assert engine.applied[0].limits.follow_slack
    assert result.arm == "fixed-mlfq:levels=4+slack"


def test_a_refused_policy_is_an_error():
    class Refusing(FakeSimulator):
        def apply(self, decision):
            return Ack(False, 0, "no such policy")

    with pytest.raises(RuntimeError, match="fixed-edf: the engine refused: no such policy"):
        run("fixed-edf", Refusing())


def test_an_engine_that_leaves_a_rule_out_is_an_error():
    class Forgetting(FakeSimulator):
        def apply(self, decision):
            without = replace(decision.limits, prefill_share=0.0)
            return super().apply(replace(decision, limits=without))

    with pytest.raises(RuntimeError, match=r"other limits: prefill_share = 0\.35 became 0\.0"):
        run("fixed-edf+balance", Forgetting())


def test_what_arrives_in_warm_up_and_tail_counts_for_nothing():
    requests = offered(5.0, 15.0, 25.0, 35.0)
    item = replace(case("vllm-fcfs", requests), span=Span(20.0, warmup_s=10.0, tail_s=10.0))
    outcomes = [outcome(i, arrival_s=each.arrival_s) for i, each in enumerate(requests)]
    assert item.counted.tolist() == [False, True, True, False]
    assert item.met(item.ran(outcomes)) == 2
    outcomes[2] = replace(outcomes[2], met=False)
    assert item.share_met(item.ran(outcomes)) == 0.5


def test_what_was_under_way_and_not_late_at_the_end_is_cut_off():
    """Promised: 0.5 s to the first token and 30 ms for each further one, or 600 s for all."""

    def left(seq, arrival_s, slo_class="interactive", **keys):
        keys = {"finish": "unfinished", "miss": "not_served", **keys}
        one = outcome(seq, arrival_s=arrival_s, met=False)
        return replace(one, e2e_s=40.0 - arrival_s, slo=SLO_CLASSES[slo_class], **keys)

    item = replace(case("vllm-fcfs"), span=Span(39.8, tail_s=0.2))
    outcomes = [
        left(0, 20.0),  # being answered
        left(1, 20.0, ttft_s=None),  # its first token is late
        left(2, 39.7, ttft_s=None),  # not yet
        left(3, 20.0, "batch", ttft_s=None),
        left(4, 20.0, miss="tpot"),
        left(5, 39.9, ttft_s=None),  # does not count
        left(6, 20.0, finish="rejected", ttft_s=None),
        outcome(7, arrival_s=20.0),
    ]
    assert item.cut_off(item.ran(outcomes)) == 3


def test_a_lost_lease_is_an_error():
    class Forgetful(FakeSimulator):
        def renew(self, controller_id, ttl_s, parts=None):
            return Ack(False, 0, "no lease")

    with pytest.raises(RuntimeError, match="lease was lost"):
        run("fixed-edf", Forgetful())


def test_the_hmas_arm_ticks_the_control_loop_and_acts():
    engine = FakeSimulator()
    result, built = run("hmas", engine)
    assert built == [False]
    assert engine.ran[0][1] == [ControlConfig().short_tick_s]
    assert engine.applied
    first = engine.applied[0]
    assert result.decisions[0].policy == format_policy(first.policy, first.params)
    assert engine.owner == ""  # closed: the lease is given back
