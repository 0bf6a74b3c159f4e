"""`hmas contract`: a file is checked, its change shown, asked about, done and written down."""

import io
import json

import pytest

from hmas_agents.commands import wheel
from serving.contracts import Contract, ContractInForce, TenantTerms
from serving.contracts.contract import ClassTerms
from tests.fakes import FakeEngine

FILE = """\
[tenants.acme]
weight = 4
classes = ["interactive", "batch"]
max_waiting = 50
[classes.batch]
sheddable = true
"""
HASH = "sha256:" + "a" * 64


@pytest.fixture
def engine(monkeypatch, tmp_path):
    engine = FakeEngine(now_s=100.0)
    monkeypatch.setattr(wheel, "connect", lambda url, token: engine)
    monkeypatch.setattr("serving.fleet.connect.connect", lambda url, token: engine)
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "hmas.token").write_text("secret")
    (tmp_path / "contract.toml").write_text(FILE)
    return engine


def test_apply_shows_what_changes_asks_does_it_and_tells_the_ledger(hmas, engine, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    code, out, _ = hmas("contract", "apply", "contract.toml", "--reason", "acme pays")
    assert code == 0
    assert "tenants.acme.weight: 1 -> 4" in out.splitlines()
    assert "contract? [y/N]" in out
    assert "(contract 0 -> 1)" in out
    assert engine.held_contract.contract.terms_of("acme").weight == 4.0
    assert "@" in engine.held_contract.by, "who, and where"
    code, out, _ = hmas("contract", "show", "--history")
    assert code == 0
    head, *changes = out.splitlines()
    assert f"contract 0 > 1, hmas contract, asked by {engine.held_contract.by}: acme pays" in head
    assert "  tenants.acme.max_waiting: none -> 50" in changes
    _, out, _ = hmas("trace", "list")
    assert "tenants.acme.weight: 1 -> 4" in out
    _, out, _ = hmas("trace", "show", "last")
    assert "contract_epoch: 0 -> 1" in out


def test_without_an_answer_nothing_changes(hmas, engine, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, _, err = hmas("contract", "apply", "contract.toml")
    assert code == 1
    assert "nothing was changed" in err
    assert engine.held_contract.epoch == 0


def test_a_script_gets_the_changes_and_then_that_there_are_none(hmas, engine):
    code, out, _ = hmas("contract", "apply", "contract.toml", "--yes", "--json")
    assert code == 0
    said = json.loads(out)
    assert said["changes"][:2] == ["tenants.acme: new", "tenants.acme.weight: 1 -> 4"]
    assert (said["ack"]["accepted"], said["ack"]["epoch"]) == (True, 1)
    code, out, _ = hmas("contract", "apply", "contract.toml", "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"changes": []})
    assert engine.held_contract.epoch == 1
    (row,) = json.loads(hmas("contract", "show", "--history", "--json")[1])
    assert (row["accepted"], row["epochs"], row["changes"]) == (True, [0, 1], said["changes"])


@pytest.mark.parametrize("verb", ["check", "apply"])
def test_a_broken_file_names_line_and_key_and_changes_nothing(hmas, engine, verb, tmp_path):
    (tmp_path / "contract.toml").write_text(FILE.replace("weight", "wieght"))
    code, _, err = hmas("contract", verb, "contract.toml")
    assert code == 2
    assert "contract.toml:2: tenants.acme.wieght: unknown key" in err
    assert engine.held_contract == ContractInForce(0, Contract())


def test_what_the_engine_refuses_is_said(hmas, engine, monkeypatch):
    engine.held_contract = ContractInForce(5, Contract())
    monkeypatch.setattr(engine, "contract", lambda: ContractInForce(3, Contract()))  # meanwhile
    code, _, err = hmas("contract", "apply", "contract.toml", "--yes")
    assert code == 1
    assert "epoch 4 is not above the present 5" in err
    assert engine.held_contract.epoch == 5


def test_check_needs_no_server(hmas, tmp_path):
    (tmp_path / "contract.toml").write_text(FILE)
    code, out, _ = hmas("contract", "check", "contract.toml")
    assert (code, out) == (
        0, "contract.toml: a contract of 1 tenants with 0 API keys, and 5 SLO classes\n",
    )  # fmt: skip


def test_show_prints_what_is_in_force(hmas, engine):
    contract = Contract(
        tenants={"acme": TenantTerms(weight=4.0, floor=0.25, max_waiting=7)},
        classes={"batch": ClassTerms(weight=0.3)},
    )
    engine.held_contract = ContractInForce(3, contract, 2.0, 99.0, "me@here", {"acme": 2})
    code, out, _ = hmas("contract", "show")
    assert code == 0
    assert "contract 3, since" in out
    assert "by me@here" in out
    row = next(line.split() for line in out.splitlines() if "acme" in line)
    assert row == ["acme", "4", "25%", "any", "7", "-", "2"]
    row = next(line.split() for line in out.splitlines() if "interactive" in line)
    assert row == ["interactive", "1", "1000", "ms", "60", "ms", "-", "-"]
    row = next(line.split() for line in out.splitlines() if "batch" in line)
    assert row[:3] == ["batch", "0.3", "-"]
    said = json.loads(hmas("contract", "show", "--json")[1])
    assert (said["epoch"], said["contract"]["tenants"]["acme"]["weight"]) == (3, 4.0)


def test_without_a_change_the_history_says_so(hmas, engine):
    hmas("contract", "apply", "contract.toml", "--yes")
    assert "contract 0 > 1" in hmas("contract", "show", "--history")[1]
    code, _, err = hmas("contract", "show", "--history", "--ledger", "var/none.sqlite")
    assert code == 2
    assert "no ledger there" in err
