"""What a model may answer: what is asked for is what is taken, and each policy keeps its bounds."""

import json

import pytest

from hmas_agents.agents.reply import (
    askable_values,
    invented_numbers,
    json_schema,
    read_reply,
    without_thinking,
)
from hmas_agents.records import Proposal
from serving.policies import POLICIES, complete_params
from tests.agents.model_server import proposals

ALL = tuple(POLICIES)
ALLOWED = ("fcfs", "edf", "slide")


def alternatives(allowed=ALL):
    items = json_schema(allowed, 3)["properties"]["proposals"]["items"]["anyOf"]
    return {
        name: item["properties"] for item in items for name in item["properties"]["policy"]["enum"]
    }


def test_usable_proposals_survive_an_unknown_one():
    reading = read_reply(proposals("lottery", "edf"), ALLOWED)
    assert [p.policy for p in reading.proposals] == ["edf"]
    assert reading.faults == ["unknown_policy: 'lottery'"]


@pytest.mark.parametrize(
    "text",
    [
        '{"proposals": [{"policy": "edf", "confidence": 1, "x": 1}]}',
        '{"proposals": [{"policy": "edf", "confidence": 1, "params": {"kappa": NaN}}]}',
        '{"proposals": [{"policy": "edf", "confidence": NaN}]}',
        proposals("edf").replace("try edf", "y" * 161),
        proposals("edf") + " " * 20_000,
    ],
)
def test_what_was_not_asked_for_is_invalid(text):
    reading = read_reply(text, ALLOWED)
    assert reading.proposals == []
    assert reading.faults[0].startswith("reply_invalid: ")


@pytest.mark.parametrize("name", ALL)
def test_the_values_to_choose_from_are_few_in_bounds_and_hold_the_default(name):
    policy = POLICIES[name]
    values = askable_values(name)
    assert set(values) == set(policy.param_bounds)
    for key, listed in values.items():
        assert 3 <= len(listed) <= 8
        assert list(listed) == sorted(set(listed))
        assert policy.default_params[key] in listed
        for value in listed:
            complete_params(name, {key: value})  # raises outside its bounds


def test_each_policy_may_only_be_given_its_own_values():
    found = alternatives()
    assert set(found) == set(ALL)
    for name, properties in found.items():
        params = properties.get("params", {"properties": {}})["properties"]
        asked = {key: tuple(map(float, p["enum"])) for key, p in params.items()}
        assert asked == askable_values(name)


def test_values_are_read_back_as_they_are_asked_for():
    for name, properties in alternatives().items():
        for key, listed in askable_values(name).items():
            for value, written in zip(
                listed, properties["params"]["properties"][key]["enum"], strict=True
            ):
                item = {"policy": name, "confidence": 0.5, "params": {key: written}}
                (proposal,) = read_reply(json.dumps({"proposals": [item]}), ALL).proposals
                assert proposal.params == {key: value}


def test_only_allowed_policies_and_so_many_proposals_are_asked_for():
    assert set(alternatives(ALLOWED)) == set(ALLOWED)
    assert json_schema(ALLOWED, 1)["properties"]["proposals"]["maxItems"] == 1


def test_a_structured_output_backend_takes_the_schema_and_keeps_to_it():
    xgrammar = pytest.importorskip("xgrammar")
    from xgrammar.testing import _is_grammar_accept_string

    def accepts(*items):
        text = json.dumps({"proposals": list(items)})
        assert read_reply(text, ALL).proposals or not items
        return _is_grammar_accept_string(grammar, text)

    properties = alternatives()
    schema = json.dumps(json_schema(ALL, 3))
    grammar = xgrammar.Grammar.from_json_schema(schema)
    for name, values in ((n, askable_values(n)) for n in ALL):
        item = {"policy": name, "confidence": 0.5, "reason": "try it"}
        assert accepts(item)
        for key, listed in values.items():
            for value in listed:
                written = properties[name]["params"]["properties"][key]["enum"]
                assert accepts({**item, "params": {key: written[listed.index(value)]}})
            assert not accepts({**item, "params": {key: listed[-1] + 1}})
        for confidence in properties[name]["confidence"]["enum"]:
            assert accepts({**item, "confidence": confidence})
    edf = {"policy": "edf", "confidence": 0.5, "reason": "try it"}
    assert not accepts({**edf, "params": {"kappa": 20}})


@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ('{"a": 1}', '{"a": 1}', 0),
        ("<think>hm</think>{}", "{}", 17),
        ("hm</think>\n{}", "\n{}", 10),
        ('{"reason": "</think>"}', '{"reason": "</think>"}', 0),
        ("<think>never closed {}", "<think>never closed {}", 0),
        ('<think>a</think>{"r": "</think>"}', '{"r": "</think>"}', 16),
    ],
)
def test_thinking_ends_where_the_answer_begins(text, answer, thought):
    assert without_thinking(text) == (answer, thought)


@pytest.mark.parametrize(
    ("reason", "invented"),
    [
        ("long prompts wait", []),
        ("load 1.3, t3 misses", []),
        ("load 130% and 54%", ["54"]),
        ("t4 misses", ["4"]),
        ("kappa 40 it is, 90% sure", []),
        ("p99 of 12.50 s", ["99", "12.50"]),
        ("9" * 400, ["9" * 400]),
    ],
)
def test_numbers_in_a_reason_come_from_what_was_sent_or_from_the_proposal(reason, invented):
    proposal = Proposal("model", "slide", {"kappa": 40.0}, reason, 0.9)
    assert (
        invented_numbers(proposal, ["Load: 1.30", "Tenants missing targets: t3 badly."]) == invented
    )
