"""`hmas trace twin` says how often reality lay in the twin's intervals."""

import json

import pytest

from hmas_agents.config import Config
from hmas_agents.ledger import Ledger
from tests.hmas_agents.samples import record

TWIN = {
    "horizon_s": 60.0, "candidates": 200, "left_out": 50, "futures": 32, "forecasts": 500,
    "work_s": 0.4, "wall_s": 0.5, "spread": 0.02,
}  # fmt: skip


def predicted(realised: float, requests: int = 100, **twin: float):
    return record(
        predicted=0.8, predicted_low=0.7, predicted_high=0.9, realised=realised,
        realised_requests=requests, twin=TWIN | twin,
    )  # fmt: skip


@pytest.fixture
def ledgers(tmp_path):
    """One run that came as predicted, and one that came under, above, and too early to say."""
    runs = [
        [predicted(0.75), predicted(0.85, wall_s=1.5)],
        [predicted(0.5), predicted(0.95), predicted(0.5, requests=29), record(twin={})],
    ]
    for i, decisions in enumerate(runs):
        ledger = Ledger(tmp_path / f"{i}.sqlite", config=Config())
        for each in decisions:
            ledger.record_decision(each)
        ledger.close()
    return [str(tmp_path / f"{i}.sqlite") for i in range(2)]


def test_several_ledgers_are_judged_together(hmas, ledgers):
    code, out, _ = hmas("trace", "twin", *ledgers, "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["decisions"], told["settled"]) == (5, 4)
    assert (told["inside"], told["under"], told["above"]) == (2, 1, 1)
    assert told["coverage"] == 0.5
    assert told["coverage_95"] == pytest.approx([0.0676, 0.9324], abs=1e-4)
    assert told["wall_s"] == pytest.approx([0.5, 1.46])


def test_people_read_what_was_stated_and_what_held(hmas, ledgers):
    _, out, _ = hmas("trace", "twin", ledgers[0])
    assert "candidates of one: p50 200, p99 200" in out
    assert "left_out of one: p50 50, p99 50" in out
    assert "work_s of one: p50 0.40, p99 0.40" in out
    assert "intervals: 2 of 2 held, 100.0% (95% sure: 15.8% to 100.0%; they state 90.0%)" in out


def test_the_fewest_futures_are_told(hmas, tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite", config=Config())
    for futures in (32, 32, 8):
        ledger.record_decision(predicted(0.8, futures=futures))
    ledger.close()
    assert "futures of one: p50 32, p1 8" in hmas("trace", "twin", str(tmp_path / "l.sqlite"))[1]


def test_what_an_older_ledger_does_not_know_is_no_hindrance(hmas, tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite", config=Config())
    ledger.record_decision(record(twin={"candidates": 5, "forecasts": 9, "wall_s": 0.5}))
    ledger.close()
    assert "forecasts of one: p50 9, p99 9" in hmas("trace", "twin", str(tmp_path / "l.sqlite"))[1]


def test_a_ledger_without_forecasts_says_so(hmas, tmp_path):
    path = tmp_path / "empty.sqlite"
    Ledger(path, config=Config()).close()
    assert hmas("trace", "twin", str(path))[1] == "decisions with forecasts: 0\n"


def test_a_file_that_is_no_ledger_is_named(hmas, tmp_path):
    code, _, err = hmas("trace", "twin", str(tmp_path / "none.sqlite"))
    assert code != 0
    assert "none.sqlite" in err
