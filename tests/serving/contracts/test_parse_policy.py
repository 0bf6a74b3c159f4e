"""Policies and rules as people write them: `mlfq:levels=4,quantum_s=0.1`, `+slack -pace`."""

import pytest

from serving.contracts.rules import format_rules, parse_rules
from serving.policies import POLICIES, complete_params, format_policy, parse_policy


@pytest.mark.parametrize("name", POLICIES)
def test_a_name_alone_is_the_policy_with_its_defaults(name):
    assert parse_policy(name) == (name, {})


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("edf:kappa=10", {"kappa": 10.0}),
        ("edf:kappa=2.5e1", {"kappa": 25.0}),
        ("mlfq:levels=4,quantum_s=0.1", {"levels": 4.0, "quantum_s": 0.1}),
    ],
)
def test_parameters_follow_a_colon(text, params):
    assert parse_policy(text) == (text.partition(":")[0], params)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lifo", "policy 'lifo' does not exist; there are fcfs"),
        ("lifo", "does not exist; there are"),
        ("efd", "policy 'efd' does not exist; did you mean 'edf'? there are fcfs"),
        ("", "policy '' does not exist"),
        ("lifo:kappa=1", "policy 'lifo' does not exist"),
        ("edf:", "'edf:': '' is not of the form parameter=number"),
        ("edf:kappa", "'kappa' is not of the form parameter=number"),
        ("edf:kappa=x", "'kappa=x' is not of the form parameter=number"),
        ("edf:kappa=1,", "'' is not of the form parameter=number"),
        ("edf:kappa=1=2", "'kappa=1=2' is not of the form parameter=number"),
        ("edf:kapa=1", "no parameter 'kapa'; did you mean 'kappa'? it has kappa"),
        ("edf:=1", "no parameter ''; it has kappa"),
        ("edf:alpha=1", "no parameter 'alpha'; it has kappa"),
        ("edf:kappa=1,kappa=2", "'edf:kappa=1,kappa=2' names 'kappa' twice"),
        ("edf:kappa=-1", "edf.kappa = -1.0 is outside 0.0..1000.0"),
        ("edf:kappa=1001", "edf.kappa = 1001.0 is outside 0.0..1000.0"),
        ("edf:kappa=nan", "edf.kappa = nan is outside"),
        ("fcfs:kappa=1", "no parameter 'kappa'"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    with pytest.raises(ValueError) as caught:
        parse_policy(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["fcfs", "edf", "edf:kappa=10", "mlfq:levels=6,quantum_s=0.1"])
def test_what_is_written_is_read_back_without_defaults(text):
    name, params = parse_policy(text)
    assert format_policy(name, params) == text
    assert format_policy(name, complete_params(name, params)) == text


def test_a_policy_of_another_release_is_written_as_it_was():
    assert format_policy("lifo", {"depth": 3.0}) == "lifo:depth=3"


@pytest.mark.parametrize("text", ["", "+slack", "+slack +serial -pace"])
def test_rules_are_read_back_as_they_were_written(text):
    assert format_rules(parse_rules(text)) == text


def test_rules_need_no_spaces():
    assert parse_rules("+slack-pace") == {"slack": True, "pace": False}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slack", "'slack': 'slack': a rule is written +NAME for on, -NAME for off"),
        ("+slack +", "'+': a rule is written"),
        ("+-slack", "'+': a rule is written"),
        ("+slacks", "rule 'slacks' does not exist; did you mean 'slack'? there are slack, demote"),
        ("+magic", "rule 'magic' does not exist; there are slack"),
        ("+slack -slack", "'+slack -slack' names 'slack' twice"),
    ],
)
def test_a_wrong_rule_is_named(text, said):
    with pytest.raises(ValueError) as caught:
        parse_rules(text)
    assert said in str(caught.value)
