"""What was told acts at its time, ends at its time, and is in the ledger; on a fake engine."""

from dataclasses import replace

import pytest

from hmas_agents.intent.change import Change
from hmas_agents.intent.told import ToldChange, ToldError, ToldStore, told_path
from hmas_agents.situation import Expected
from serving.contracts import Contract, ContractChange, ContractInForce, QueueState
from serving.contracts.contract import ClassTerms, TenantTerms
from serving.engines.protocol import EngineUnavailable
from tests.fakes import FakeEngine
from tests.graphs.fake_loop import Loop, config, decisions, serve

CONTRACT = Contract.model_validate({
    "believe_clients": True,
    "tenants": {"acme": {"weight": 2.0}, "beta": {}},
    "classes": {"chat": {"ttft_ms": 1000, "tpot_ms": 50}, "bulk": {"sheddable": True}},
})  # fmt: skip


@pytest.fixture
def engine():
    return FakeEngine(held_contract=ContractInForce(0, CONTRACT))


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "l.sqlite"


def tell(ledger, *changes, from_s=10.0, until_s=100.0):
    """An approved text; each change is (kind, amount and names)."""
    with ToldStore(told_path(ledger), create=True) as store:
        told = store.add(0.0, "ann@desk", "words")
        store.approve(
            told,
            [ToldChange(told, n, Change(**change), from_s, until_s)
             for n, change in enumerate(changes)],
        )  # fmt: skip
        return told


def states(ledger, told):
    with ToldStore(told_path(ledger)) as store:
        return [(each.state, each.note) for each in store.get(told).changes]


def test_a_weight_holds_from_its_beginning_to_its_end(engine, ledger):
    told = tell(ledger, {"kind": "weight", "tenant": "acme", "factor": 6.0})
    loop = Loop(engine, config(), ledger)
    loop.short(2.0)
    assert engine.contract().contract == CONTRACT
    assert states(ledger, told) == [("ahead", "")]
    loop.short(12.0)
    assert engine.contract().contract.tenants["acme"].weight == 6.0
    assert engine.contract().by == "words"
    assert states(ledger, told) == [("in force", "")]
    loop.short(98.0)
    assert engine.contract().epoch == 1, "nothing is applied twice"
    loop.short(100.0)
    assert engine.contract().contract == CONTRACT
    assert states(ledger, told) == [("ended", "its time is over")]
    loop.loop.close()
    rows = [record for record in decisions(ledger) if record.trigger == "told"]
    assert [row.reason for row in rows] == ["ahead", "in force", "ended: its time is over"]
    assert rows[1].tool_calls[0].args["told"] == told


def test_floor_and_targets_change_with_it_and_the_rest_stays(engine, ledger):
    tell(
        ledger,
        {"kind": "floor", "tenant": "beta", "share": 0.2},
        {"kind": "slo_scale", "slo_class": "chat", "factor": 1.5},
    )
    loop = Loop(engine, config(), ledger)
    loop.short(12.0)
    loop.short(14.0)
    held = engine.contract().contract
    assert held.tenants["beta"].floor == 0.2
    assert held.tenants["acme"] == CONTRACT.tenants["acme"]
    assert (held.classes["chat"].ttft_ms, held.classes["chat"].tpot_ms) == (1500, 75)
    assert held.classes["bulk"] == CONTRACT.classes["bulk"]


def test_a_class_has_its_weight_beside_its_targets(engine, ledger):
    told = tell(
        ledger,
        {"kind": "weight", "slo_class": "chat", "factor": 3.0},
        {"kind": "slo_scale", "slo_class": "chat", "factor": 1.5},
        {"kind": "weight", "slo_class": "batch", "factor": 0.3},
    )
    loop = Loop(engine, config(), ledger)
    loop.short(12.0)
    held = engine.contract().contract
    chat = held.classes["chat"]
    assert (chat.weight, chat.ttft_ms, chat.tpot_ms) == (3.0, 1500, 75)
    assert held.weight_of("acme", "batch") == 2.0 * 0.3
    assert held.slo_of("batch") == CONTRACT.slo_of("batch")
    assert {state for state, _ in states(ledger, told)} == {"in force"}
    loop.short(100.0)
    assert engine.contract().contract == CONTRACT


def test_nobody_weighs_more_when_all_weigh_1(engine, ledger):
    heavy = CONTRACT.model_copy(update={"classes": {"chat": ClassTerms(ttft_ms=1000, weight=5.0)}})
    engine.held_contract = ContractInForce(0, heavy)
    tell(ledger, {"kind": "weight", "factor": 1.0})
    loop = Loop(engine, config(), ledger)
    loop.short(12.0)
    held = engine.contract().contract
    assert held.weight_of("acme", "chat") == 1.0
    assert set(held.classes) == {"chat"}


def test_the_later_of_two_that_say_the_same_holds_and_the_earlier_comes_back(engine, ledger):
    tell(ledger, {"kind": "weight", "tenant": "acme", "factor": 6.0})
    later = tell(ledger, {"kind": "weight", "tenant": "acme", "factor": 9.0})
    loop = Loop(engine, config(), ledger)
    loop.short(12.0)
    assert engine.contract().contract.tenants["acme"].weight == 9.0
    with ToldStore(told_path(ledger)) as store:
        store.revoke(later, 13.0)
    loop.short(14.0)
    assert engine.contract().contract.tenants["acme"].weight == 6.0
    assert states(ledger, later) == [("ended", "taken back")]


def test_a_contract_that_somebody_applies_meanwhile_is_what_comes_back(engine, ledger):
    tell(ledger, {"kind": "weight", "tenant": "acme", "factor": 6.0})
    loop = Loop(engine, config(), ledger)
    loop.short(12.0)
    by_hand = CONTRACT.model_copy(update={"default_class": "chat"})
    engine.apply_contract(ContractChange(by_hand, engine.contract().epoch + 1, "ann"))
    loop.short(14.0)
    assert engine.contract().contract.tenants["acme"].weight == 6.0
    assert engine.contract().contract.default_class == "chat"
    loop.short(100.0)
    assert engine.contract().contract == by_hand


def test_a_controller_that_died_leaves_the_way_back_to_the_next_one(engine, ledger):
    tell(ledger, {"kind": "weight", "tenant": "acme", "factor": 6.0})
    Loop(engine, config(), ledger).short(12.0)  # and never closed
    engine.owner = ""
    following = Loop(engine, config(), ledger)
    following.short(14.0)
    assert engine.contract().contract.tenants["acme"].weight == 6.0
    following.short(101.0)
    assert engine.contract().contract == CONTRACT


def test_a_crash_before_the_engine_has_answered_leaves_it_too(engine, ledger, monkeypatch):
    tell(ledger, {"kind": "weight", "tenant": "acme", "factor": 6.0})
    apply = engine.apply_contract

    def applied_unheard(change):
        apply(change)
        raise EngineUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "apply_contract", applied_unheard)
        with pytest.raises(EngineUnavailable):
            Loop(engine, config(), ledger).short(12.0)
    assert engine.contract().contract.tenants["acme"].weight == 6.0
    Loop(engine, config(), ledger).short(101.0)
    assert engine.contract().contract == CONTRACT


def test_a_controller_that_ends_or_is_kept_out_takes_words_back(engine, ledger):
    tell(ledger, {"kind": "weight", "tenant": "acme", "factor": 6.0})
    loop = Loop(engine, config(), ledger)
    loop.short(12.0)
    loop.loop.close()
    assert engine.contract().contract == CONTRACT
    again = Loop(engine, config(), ledger)
    again.short(14.0)
    assert engine.contract().contract.tenants["acme"].weight == 6.0
    engine.stop("ann")
    with pytest.raises(Exception, match="stopped by ann"):
        again.short(16.0)
    assert engine.contract().contract == CONTRACT


def test_a_controller_that_advises_changes_nothing_and_says_so(engine, ledger):
    told = tell(
        ledger,
        {"kind": "weight", "tenant": "acme", "factor": 6.0},
        {"kind": "shed", "slo_class": "bulk", "share": 0.5},
        {"kind": "expect", "tenant": "acme", "factor": 3.0},
    )
    loop = Loop(engine, config(control__mode="advise"), ledger)
    loop.short(12.0)
    loop.short(14.0)
    assert engine.contract().contract == CONTRACT
    assert engine.applied == []
    assert [state for state, _ in states(ledger, told)] == ["not applied"] * 2 + ["in force"]


class KeyedEngine(FakeEngine):
    """Shows its contract as engines do: without the hashes of API keys."""

    def contract(self):
        held = super().contract()
        return replace(held, contract=held.contract.without_keys())


def test_api_keys_that_the_engine_shows_nobody_are_not_lost(ledger):
    terms = TenantTerms(weight=2.0, api_key_hashes=("sha256:" + "a" * 64,))
    keyed = Contract(tenants={"acme": terms, "beta": TenantTerms()})
    engine = KeyedEngine(held_contract=ContractInForce(0, keyed))
    tell(ledger, {"kind": "weight", "tenant": "acme", "factor": 6.0})
    loop = Loop(engine, config(), ledger)
    loop.short(12.0)
    acme = engine.held_contract.contract.tenants["acme"]
    assert (acme.weight, acme.api_key_hashes) == (6.0, terms.api_key_hashes)
    loop.short(100.0)
    assert engine.held_contract.contract == keyed


def test_shedding_stands_in_for_the_agent_and_is_set_back(engine, ledger):
    tell(ledger, {"kind": "shed", "slo_class": "bulk", "share": 0.5}, until_s=60.0)
    loop = Loop(engine, config(), ledger)
    loop.short(2.0)
    loop.short(12.0)
    assert engine.limits.shed == 0.5
    assert loop.records[-1].tool_calls[0].args["reason"].startswith("told by operators")
    engine.queue = QueueState(waiting=0)  # the rule agent would let go
    loop.short(40.0)
    assert engine.limits.shed == 0.5
    loop.short(60.0)
    loop.short(80.0)
    assert engine.limits.shed == 0.0


def test_the_policy_agent_sees_what_is_in_force_or_to_come_and_not_the_words(engine, ledger):
    tell(ledger, {"kind": "weight", "tenant": "acme", "factor": 6.0}, until_s=None)
    tell(ledger, {"kind": "expect", "tenant": "beta", "factor": 3.0}, from_s=800.0, until_s=1400.0)
    over = tell(ledger, {"kind": "weight", "tenant": "beta", "factor": 9.0})
    with ToldStore(told_path(ledger)) as store:
        store.reword(over, "choose fcfs")
        store.revoke(over, 11.0)
    loop = Loop(engine, config(), ledger)
    loop.short(12.0)
    seen = loop.long(20.0)
    assert seen.summary.splitlines()[-2:] == [
        "Contract: acme weight 6; bulk no targets; chat TTFT 1 s, TPOT 0.05 s.",
        "Told by operators: beta expect 3x requests in 13 min for 10 min; "
        "acme weight 6 without end.",
    ]
    engine.stop("ann")
    with pytest.raises(Exception, match="stopped by ann"):
        loop.short(22.0)
    assert "Told" not in loop.long(30.0).summary


def expected(loop):
    return loop.loop._parts.watch.situation().expected


def test_the_twin_knows_of_what_was_announced_until_it_is_over(engine, ledger):
    tell(ledger, {"kind": "expect", "tenant": "a", "factor": 3.0}, from_s=60.0, until_s=120.0)
    loop = Loop(engine, config(), ledger)
    loop.short(2.0)
    assert expected(loop) == (Expected(3.0, 60.0, 120.0, "a"),)
    serve(engine, 100, at_s=10.0)  # two a second, from then to 60 s: no more than before
    loop.short(60.0)
    now, back = expected(loop)
    assert (now.from_s, now.until_s, back.from_s, back.until_s) == (60.0, 120.0, 120.0, None)
    assert 2.0 < now.factor <= 3.0
    assert back.factor == pytest.approx(now.factor / 3.0)
    loop.short(120.0)
    assert expected(loop) == ()


def test_traffic_that_is_there_is_not_expected_once_more(engine, ledger):
    tell(ledger, {"kind": "expect", "tenant": "a", "factor": 3.0}, from_s=60.0, until_s=None)
    loop = Loop(engine, config(), ledger)
    loop.short(2.0)
    serve(engine, 120, at_s=2.0)
    loop.short(62.0)
    for thread in range(3):
        serve(engine, 60, at_s=62.0 + thread / 10)
    loop.short(92.0)
    (now,) = expected(loop)
    assert now.factor == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("threads", "state"), [(1, "ended"), (3, "in force")])
def test_what_was_announced_and_does_not_come_ends(engine, ledger, threads, state):
    told = tell(ledger, {"kind": "expect", "tenant": "a", "factor": 3.0}, from_s=60.0, until_s=None)
    loop = Loop(engine, config(), ledger)
    loop.short(2.0)
    serve(engine, 120, at_s=2.0)
    loop.short(62.0)
    for thread in range(threads):
        serve(engine, 1200, at_s=62.0 + thread / 10)
    loop.short(600.0)
    assert states(ledger, told)[0][0] == "in force"
    loop.short(661.0)
    ((now, note),) = states(ledger, told)
    assert now == state
    assert ("did not come: 1x what it was" in note) == (state == "ended")


def test_a_file_that_others_may_write_is_not_followed(engine, ledger):
    tell(ledger, {"kind": "weight", "tenant": "acme", "factor": 6.0})
    loop = Loop(engine, config(), ledger)
    told_path(ledger).chmod(0o666)
    loop.short(12.0)
    assert engine.contract().contract == CONTRACT
    with pytest.raises(ToldError, match="others may write it"):
        ToldStore(told_path(ledger))


def test_the_file_is_for_its_owner_only(tmp_path):
    with ToldStore(tmp_path / "new" / "l.told.sqlite", create=True) as store:
        store.add(0.0, "ann", "words")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in (tmp_path / "new").iterdir()} == {0o600}
