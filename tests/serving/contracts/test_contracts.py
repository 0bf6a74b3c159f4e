"""Does every message survive the wire, and does a bad one name its key and value?"""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import contracts
from serving.contracts import (
    SLO,
    Ack,
    ClassTerms,
    Contract,
    ContractError,
    Decision,
    JournalPage,
    Limits,
    Snapshot,
    TenantTerms,
    decode,
    encode,
)
from serving.contracts.settings import EngineSettings, read_settings
from tests.serving.samples import arrival, decision, outcome

SMALL = Contract(
    tenants={"acme": TenantTerms(classes=("gold",), api_key_hashes=("sha256:" + "a" * 64,))},
    classes={"gold": ClassTerms(ttft_ms=100.0, sheddable=True)},
)
st.register_type_strategy(Contract, st.sampled_from([SMALL, Contract(believe_clients=True)]))
MESSAGES = [
    kind
    for kind in vars(contracts).values()
    if dataclasses.is_dataclass(kind) and isinstance(kind, type)
]


def test_the_messages_are_all_here():
    assert {Snapshot, Decision, Ack, JournalPage, SLO, Limits} < set(MESSAGES)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_survives_the_wire(kind):
    # A snapshot's ranks are snapshots: drawn without, then given some, or it would never end.
    drawn = st.from_type(kind)
    if kind is Snapshot:
        alone = st.builds(Snapshot, ranks=st.just(()))
        drawn = alone | alone.map(lambda shot: dataclasses.replace(shot, ranks=(shot, shot)))

    @settings(deadline=None, max_examples=20)
    @given(drawn)
    def check(message):
        wire = json.loads(json.dumps(encode(message)))
        assert repr(decode(kind, wire)) == repr(message)  # by repr: NaN is not equal to itself

    check()


def test_a_journal_page_keeps_arrivals_and_outcomes():
    page = JournalPage(7, 2, (arrival(3), arrival(5)), (outcome(4), outcome(6)))
    assert decode(JournalPage, json.loads(json.dumps(encode(page)))) == page


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("epoch",), "soon", "Decision.epoch"),
        (("epoch",), 1.5, "Decision.epoch"),
        (("policy",), 7, "Decision.policy"),
        (("params", "kappa"), "high", "Decision.params.kappa"),
        (("limits", "token_budget"), None, "Decision.limits.token_budget"),
        (("limits", "prefill_share"), [], "Decision.limits.prefill_share"),
        (("limits", "follow_slack"), "perhaps", "Decision.limits.follow_slack"),
        (("more",), 123, "Decision.more"),
        (("limits", "max_batch"), 8, "Decision.limits.max_batch"),
    ],
)
def test_a_bad_or_unknown_key_is_named_with_its_value(path, value, named):
    message = encode(decision(1))
    part = message
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(ContractError) as caught:
        decode(Decision, message)
    assert str(caught.value).startswith(f"{named}: ")
    assert f"(got {value!r})" in str(caught.value)


@pytest.mark.parametrize("key", ["controller_id", "epoch", "ttl_s", "policy", "params", "limits"])
def test_a_missing_key_is_named(key):
    message = encode(decision(1))
    del message[key]
    with pytest.raises(ContractError, match=rf"Decision\.{key}: Field required"):
        decode(Decision, message)


@pytest.mark.parametrize("junk", [None, 7, "text", [], [1, 2]])
def test_what_is_no_message_at_all_is_refused(junk):
    with pytest.raises(ContractError, match="Decision"):
        decode(Decision, junk)


@given(st.recursive(
    st.none() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
))  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_junk_is_a_contract_error_and_nothing_else(junk):
    for kind in (Decision, Snapshot, JournalPage):
        with pytest.raises(ContractError):
            decode(kind, junk)


def test_an_older_reader_ignores_what_a_newer_engine_adds_to_its_answers():
    assert decode(Ack, {**encode(Ack(True, 3)), "new": 1}) == Ack(True, 3)


def test_slos_scale():
    assert SLO(500, None, 8000).scaled(2.0) == SLO(1000, None, 16_000)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"max_wait_s": 0}, "hmas.max_wait_s"),
        ({"default_polcy": "edf"}, "hmas.default_polcy"),
        ({"contract": {"classes": {"gold": {"ttft": 5}}}}, "hmas.contract.classes.gold.ttft"),
        ({"journal_size": "big"}, "hmas.journal_size"),
        (7, "hmas:"),
    ],
)
def test_bad_start_up_settings_name_the_key(raw, named):
    with pytest.raises(ContractError, match="--additional-config") as caught:
        read_settings({"hmas": raw})
    assert named in str(caught.value)


GOLD = {"classes": {"gold": {"ttft_ms": 5}}}


def test_start_up_settings_default_when_there_are_none():
    assert read_settings({}) == read_settings(None) == EngineSettings()
    read = read_settings({"hmas": {"slo_scale": 2.0, "contract": GOLD}})
    assert read.slo_of("gold") == SLO(10)
    assert read.slo_of("interactive") == SLO(1000, 60)
    assert read.slo_of("nope") is None
