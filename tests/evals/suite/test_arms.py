"""Does each name of an arm mean one contender, and is a wrong one named with what is wrong?"""

import pickle
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evals.suite.arms import (
    ControllerOptions,
    controller_config,
    expand_arms,
    fixed_decision,
    is_arm,
    listed_arms,
    parse_arm,
)
from hmas_agents.config import ConfigError, ControlConfig
from serving.contracts import Limits
from serving.contracts.rules import RULES, with_rules
from serving.policies import POLICIES

TUNABLE = [name for name, policy in POLICIES.items() if policy.param_bounds]
STOCK = Limits(8, 512)


@st.composite
def fixed_arms(draw):
    """A policy with some of its parameters and some rules: the name, and what it says."""
    policy = draw(st.sampled_from(TUNABLE))
    bounds = POLICIES[policy].param_bounds
    chosen = draw(st.lists(st.sampled_from(sorted(bounds)), unique=True))
    params = tuple((param, float(f"{draw(st.floats(*bounds[param])):.6f}")) for param in chosen)
    assume(all(bounds[param][0] <= value <= bounds[param][1] for param, value in params))
    rules = draw(st.lists(st.sampled_from(sorted(RULES)), unique=True))
    colon = ":" if params else ""
    named = ",".join(f"{param}={value:.6f}" for param, value in params)
    name = "+".join([f"fixed-{policy}{colon}{named}", *rules])
    return name, policy, params, tuple(rules)


def test_arms_are_parsed_by_name():
    assert parse_arm("vllm-fcfs").kind == "stock"
    assert parse_arm("hmas").kind == "loop"
    for policy in POLICIES:
        assert parse_arm(f"fixed-{policy}").policy == policy
    for unknown in ("fixed-", "fcfs", "fixed-hmas", "", "hmas+slack", "vllm-fcfs+rules"):
        with pytest.raises(ValueError, match="unknown arm"):
            parse_arm(unknown)


def test_the_loop_may_start_with_another_policy():
    arm = parse_arm("hmas:start=srpt:rho=1")
    assert (arm.kind, arm.start, arm.policy) == ("loop", "srpt:rho=1", "")
    assert arm.id_text == "hmas-start-srpt-rho-1"
    control = controller_config(ControllerOptions(), {}, arm).control
    assert (control.mode, control.start_policy) == ("act", "srpt:rho=1")
    advising = parse_arm("hmas-advise:start=srpt")
    control = controller_config(ControllerOptions(), {}, advising).control
    assert (control.mode, control.start_policy) == ("advise", "srpt")
    default = controller_config(ControllerOptions(), {}, parse_arm("hmas")).control.start_policy
    assert default == ControlConfig().start_policy
    with pytest.raises(ConfigError, match="start_policy 'mlfq' is not in allow_policies"):
        controller_config(ControllerOptions(), {}, parse_arm("hmas:start=mlfq"))


def test_an_arm_may_bound_the_requests_that_run_at_once():
    arm = parse_arm("fixed-edf:kappa=3+slack+active=6")
    assert (arm.active, arm.rules) == (6, ("slack",))
    assert arm.id_text == "fixed-edf-kappa-3+slack+active-6"
    decision = fixed_decision(arm, STOCK, 1, 30.0)
    assert decision.limits == with_rules(Limits(6, 512), ["slack"])
    assert fixed_decision(parse_arm("fixed-edf+slack"), STOCK, 1, 30.0).limits.token_budget == 512
    for wrong in ("active=0", "active=", "active=-3", "active=6.5", "active=6+active=7"):
        with pytest.raises(ValueError, match="one number of requests from 1 on"):
            parse_arm(f"fixed-edf+{wrong}")


def test_an_arm_may_end_in_rules():
    arm = parse_arm("fixed-edf+slack+pace")
    assert (arm.name, arm.policy, arm.rules) == ("fixed-edf+slack+pace", "edf", ("slack", "pace"))
    assert parse_arm("fixed-edf+rules").rules == tuple(RULES)
    with pytest.raises(ValueError, match=r"edf\+magic': rule 'magic' does not exist; there are sl"):
        parse_arm("fixed-edf+magic")
    with pytest.raises(ValueError, match="names 'pace' twice"):
        parse_arm("fixed-edf+pace+pace")
    with pytest.raises(ValueError, match="rules alone is all of them"):
        parse_arm("fixed-edf+rules+pace")


def test_a_star_stands_for_every_policy_or_each_rule_alone():
    assert expand_arms(["vllm-fcfs", "hmas"]) == ("vllm-fcfs", "hmas")
    assert expand_arms(["fixed-*+rules"]) == tuple(f"fixed-{p}+rules" for p in POLICIES)
    assert expand_arms(["fixed-edf+*"]) == tuple(f"fixed-edf+{rule}" for rule in RULES)


@given(fixed_arms())
def test_a_name_with_parameters_is_what_is_decided(said):
    name, policy, params, rules = said
    arm = parse_arm(name)
    assert (arm.name, arm.kind, arm.policy) == (name, "fixed", policy)
    assert (arm.params, arm.rules) == (params, rules)
    assert is_arm(name)
    decision = fixed_decision(arm, STOCK, 1, 10.0)
    assert (decision.policy, decision.params) == (policy, dict(params))
    assert decision.limits == with_rules(STOCK, rules)


@given(fixed_arms())
def test_an_arm_can_be_sent_hashed_and_used_in_ids(said):
    arm = parse_arm(said[0])
    assert pickle.loads(pickle.dumps(arm)) == arm
    assert len({arm, parse_arm(said[0])}) == 1
    assert re.fullmatch(r"[\w.+-]+", arm.id_text)


@given(st.lists(fixed_arms().map(lambda said: said[0]), min_size=1), st.sampled_from([",", ", "]))
def test_a_list_with_commas_has_every_arm_and_nothing_is_written_out(names, comma):
    assert listed_arms(comma.join(names)) == tuple(names)
    assert expand_arms(names) == tuple(names)


def test_parameters_are_part_of_what_an_arm_is():
    plain, tuned = parse_arm("fixed-sjf+pace"), parse_arm("fixed-sjf:kappa=40+pace")
    assert plain != tuned
    assert (plain.policy, tuned.policy) == ("sjf", "sjf")
    assert (plain.params, tuned.params) == ((), (("kappa", 40.0),))
    assert tuned.id_text == "fixed-sjf-kappa-40+pace"
    assert parse_arm("hmas").policy == ""


def test_a_policy_with_parameters_may_have_each_rule_alone():
    alone = tuple(f"fixed-slide:kappa=5+{rule}" for rule in RULES)
    assert expand_arms(["fixed-slide:kappa=5+*"]) == alone


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fixed-magic:kappa=1", "unknown arm 'fixed-magic:kappa=1'; known: vllm-fcfs"),
        ("fixed-*:kappa=1", "unknown arm"),
        ("hmas:kappa=1", "unknown arm"),
        ("vllm-fcfs:kappa=1", "unknown arm"),
        ("twin-only:start=edf", "unknown arm"),
        ("hmas:start=", "arm 'hmas:start=': policy '' does not exist"),
        ("hmas:start=lifo", "policy 'lifo' does not exist"),
        ("hmas:start=edf:beta=1", "policy 'edf' has no parameter 'beta'"),
        ("fixed-sjf:beta=1", "policy 'sjf' has no parameter 'beta'; it has kappa"),
        ("fixed-fcfs:kappa=1+pace", "policy 'fcfs' has no parameter 'kappa'; it has none"),
        ("fixed-sjf:", "'' is not of the form parameter=number"),
        ("fixed-sjf:kappa", "'kappa' is not of the form"),
        ("fixed-sjf:kappa=", "'kappa=' is not of the form"),
        ("fixed-sjf:=5", "policy 'sjf' has no parameter ''; it has kappa"),
        ("fixed-sjf:kappa=1,", "'' is not of the form"),
        ("fixed-sjf:kappa=1,kappa=2", "names 'kappa' twice"),
        ("fixed-sjf:kappa=much", "'kappa=much' is not of the form"),
        ("fixed-sjf:kappa=1=2", "'kappa=1=2' is not of the form"),
        ("fixed-sjf:kappa=1:kappa=2", "'kappa=1:kappa=2' is not of the form"),
        ("fixed-sjf:kappa=1001", "sjf.kappa = 1001.0 is outside 0.0..1000.0"),
        ("fixed-sjf:kappa=-1", "sjf.kappa = -1.0 is outside 0.0..1000.0"),
        ("fixed-sjf:kappa=nan", "sjf.kappa = nan is outside"),
        ("fixed-sjf:kappa=40+magic", "rule 'magic' does not exist"),
    ],
)  # fmt: skip
def test_a_parameter_that_does_not_fit_is_named_with_its_arm(name, says):
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        parse_arm(name)
    assert f"arm {name!r}" in str(error.value)
    assert not is_arm(name)
