"""A recorded run becomes cases: its long decisions with their situations."""

import pytest

from hmas_agents.case_file import read_cases
from hmas_agents.cases import cases_of, export_cases
from hmas_agents.config import load_config
from hmas_agents.ledger import Ledger, LedgerReader
from hmas_agents.ledger.schema import LedgerError
from hmas_agents.situation import encode_situation
from tests.evals.agent_samples import situation
from tests.hmas_agents.samples import record


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "l.sqlite"
    config = load_config(None, {"control.allow_policies": ("edf", "slide")})
    for label in ("first", "second"):
        book = Ledger(path, label=label, config=config)
        at_s = 100.0 if label == "first" else 1_700_000_000.0
        book.record_decision(record(horizon="short", at_s=at_s))
        book.record_decision(record(at_s=at_s, situation=encode_situation(situation("slide"))))
        book.record_decision(record(at_s=at_s + 60))  # of a version without situations
        book.close()
    return path


def test_each_long_decision_with_a_situation_is_a_case(ledger, tmp_path):
    with LedgerReader(ledger) as reader:
        assert export_cases(reader, None, tmp_path / "all.jsonl") == 2
        assert export_cases(reader, 2, tmp_path / "run.jsonl.gz") == 1
    first, second = read_cases(tmp_path / "all.jsonl")
    assert read_cases(tmp_path / "run.jsonl.gz") == [second]
    assert (first.scenario, second.scenario) == ("first", "second")
    assert first.incumbent == ("slide", {})
    assert first.allowed == ("edf", "slide")
    assert first.situation == situation("slide")
    assert (first.labels, first.plan) == ({}, None)
    assert first.provenance == {"kind": "simulated", "ledger": "l.sqlite", "run": 1, "decision": 2}
    assert second.provenance["kind"] == "live"


def test_a_run_without_situations_says_so_and_writes_nothing(ledger, tmp_path):
    with LedgerReader(ledger) as reader, pytest.raises(LedgerError, match="run 9 has a long"):
        export_cases(reader, 9, tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_a_policy_that_is_gone_since_is_no_longer_allowed(ledger, monkeypatch):
    import hmas_agents.cases as module

    monkeypatch.setattr(module, "POLICIES", {"slide": None})
    with LedgerReader(ledger) as reader:
        assert {case.allowed for case in cases_of(reader, None)} == {("slide",)}
