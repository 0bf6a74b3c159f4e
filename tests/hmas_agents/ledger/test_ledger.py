"""The ledger keeps what was decided, stays bounded, and never stops the loop."""

import json
import logging
import math
import sqlite3
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmas_agents.config import Config, load_config
from hmas_agents.ledger import Ledger, LedgerError, LedgerReader
from hmas_agents.ledger.schema import SCHEMA_VERSION
from hmas_agents.records import DecisionRecord
from serving.contracts import Outcome, decode
from tests.hmas_agents.samples import outcome, record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "var" / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    ledger = Ledger(path, label="test", config=Config())
    yield ledger
    ledger.close()


def test_a_ledger_is_for_its_owner_only(ledger, path):
    ledger.record_decision(record())
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == [f"ledger.sqlite{end}" for end in ("", "-shm", "-wal")]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_ledger_that_is_there_keeps_its_mode(ledger, path):
    ledger.close()
    path.chmod(0o640)
    Ledger(path, label="test", config=Config()).close()
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_decision_reads_back_equal(ledger, path):
    decision_id = ledger.record_decision(record())
    with LedgerReader(path) as reader:
        stored = reader.get_decision(decision_id)
    assert stored.record == record()
    assert (stored.id, stored.run_id) == (decision_id, ledger.run_id)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=50)
@given(
    state=st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3),
    predicted=st.none() | st.floats(),
    replies=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=3),
)
def test_any_record_is_stored_with_nan_as_unknown(tmp_path_factory, state, predicted, replies):
    path = tmp_path_factory.mktemp("ledger") / "l.sqlite"
    ledger = Ledger(path, config=Config())
    decision_id = ledger.record_decision(
        record(state=state, predicted=predicted, raw_replies=replies)
    )
    ledger.close()
    with LedgerReader(path) as reader:
        read = reader.get_decision(decision_id).record
    finite = predicted is not None and math.isfinite(predicted)
    assert read.predicted == (predicted if finite else None)
    assert read.raw_replies == replies
    json.dumps(read.state, allow_nan=False)


def test_what_came_of_it_is_added_later(ledger, path):
    first, second = (ledger.record_decision(record()) for _ in range(2))
    ledger.set_realised(first, 0.83, 240)
    with LedgerReader(path) as reader:
        assert reader.get_decision(first).record.realised == 0.83
        assert reader.get_decision(first).record.realised_requests == 240
        assert reader.get_decision(second).record.realised is None


def test_lists_filter_and_keep_the_order_of_time(path):
    for label, horizon in (("one", "long"), ("two", "short")):
        ledger = Ledger(path, label=label, config=Config())
        for index in range(3):
            policy = "edf" if index == 0 else "slide"
            ledger.record_decision(
                record(horizon=horizon, at_s=float(index), chosen={"policy": policy})
            )
        ledger.close()
    with LedgerReader(path) as reader:
        runs = reader.list_runs()
        assert [(r.label, r.decisions, r.first_s, r.last_s) for r in runs] == [
            ("one", 3, 0.0, 2.0),
            ("two", 3, 0.0, 2.0),
        ]
        assert len(reader.list_decisions()) == 6
        assert {d.run_id for d in reader.list_decisions(run=runs[1].id)} == {runs[1].id}
        assert {d.record.horizon for d in reader.list_decisions(horizon="short")} == {"short"}
        assert len(reader.list_decisions(policy="edf")) == 2
        newest = reader.list_decisions(run=runs[0].id, limit=2)
        assert [d.record.at_s for d in newest] == [1.0, 2.0]


def test_the_run_keeps_its_configuration(path):
    Ledger(path, label="mine", config=load_config(None, {"control.mode": "act"})).close()
    with LedgerReader(path) as reader:
        (run,) = reader.list_runs()
    assert (run.label, run.config["control"]["mode"]) == ("mine", "act")


def test_outcomes_read_back_and_are_stored_once(ledger, path):
    outcomes = [outcome(i, float(i)) for i in range(5)]
    ledger.record_outcomes(outcomes[:3])
    ledger.record_outcomes(outcomes)
    ledger.record_outcomes([])
    with LedgerReader(path) as reader:
        assert list(reader.outcomes(ledger.run_id)) == outcomes
        assert list(reader.outcomes(99)) == []


def test_a_name_that_is_no_text_loses_neither_its_outcome_nor_the_others(ledger, path):
    odd = replace(outcome(1, 1.0), tenant="acme \ud800")
    ledger.record_outcomes([outcome(0, 0.0), odd, outcome(2, 2.0)])
    ledger.record_decision(record(state={"\ud800": 1.0}, raw_replies=["\ud83d"]))
    assert ledger.dropped == 0
    with LedgerReader(path) as reader:
        assert [o.tenant for o in reader.outcomes(ledger.run_id)][1] == "acme ?"
        (decision,) = reader.list_decisions()
    assert (decision.record.state, decision.record.raw_replies) == ({"?": 1.0}, ["?"])


def test_a_request_id_that_is_no_text_is_counted_and_never_raises(ledger):
    ledger.record_outcomes([replace(outcome(0, 0.0), request_id="\ud800")])
    assert ledger.dropped == 1


@settings(max_examples=20)
@given(batches=st.lists(st.integers(0, 12), max_size=8), most=st.integers(1, 10))
def test_the_oldest_give_way(tmp_path_factory, batches, most):
    path = tmp_path_factory.mktemp("ledger") / "l.sqlite"
    config = load_config(None, {"ledger.max_outcomes": most, "ledger.max_decisions": most})
    ledger = Ledger(path, config=config)
    numbers = iter(range(1000))
    everything = []
    for size in batches:
        batch = [outcome(next(numbers), 0.0) for _ in range(size)]
        everything += batch
        ledger.record_outcomes(batch)
        ledger.record_decision(record(at_s=float(len(everything))))
    ledger.close()
    with LedgerReader(path) as reader:
        assert list(reader.outcomes()) == everything[-most:]
        assert len(reader.list_decisions()) == min(most, len(batches))
    calls = sqlite3.connect(path).execute("SELECT count(*) FROM tool_calls").fetchone()[0]
    assert calls == min(most, len(batches))


def test_a_run_that_rotation_emptied_goes_too(path):
    config = load_config(None, {"ledger.max_decisions": 1})
    for label in ("one", "two", "three"):
        ledger = Ledger(path, label=label, config=config)
        ledger.record_decision(record())
        ledger.close()
    with LedgerReader(path) as reader:
        assert [run.label for run in reader.list_runs()] == ["two", "three"]
        assert [run.decisions for run in reader.list_runs()] == [0, 1]


def test_export_is_json_lines_of_everything(ledger, path):
    ledger.record_decision(record(predicted=math.nan))
    ledger.record_outcomes([outcome(1, 1.0)])
    with LedgerReader(path) as reader:
        lines = [json.loads(line) for line in reader.export()]
    assert [line["kind"] for line in lines] == ["run", "decision", "outcome"]
    fields = {key: value for key, value in lines[2].items() if key not in {"kind", "run_id"}}
    assert decode(Outcome, fields) == outcome(1, 1.0)
    assert lines[1]["tool_calls"][0]["tool"] == "switch_policy"


def test_a_locked_file_is_logged_once_and_never_raises(ledger, path, caplog):
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.WARNING):
        assert ledger.record_decision(record()) == 0
        ledger.set_realised(1, 0.5, 10)
    assert ledger.dropped == 2
    assert [str(path) in message for message in caplog.messages] == [True]
    blocker.execute("ROLLBACK")
    assert ledger.record_decision(record()) > 0


def test_a_full_disk_never_raises(ledger):
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    results = [ledger.record_decision(record(summary="x" * 5000)) for _ in range(5)]
    assert 0 in results
    assert ledger.dropped >= 1


def test_writes_after_close_are_dropped(ledger):
    ledger.close()
    assert ledger.record_decision(record()) == 0
    ledger.record_outcomes([outcome(1, 1.0)])
    assert ledger.dropped == 2


def test_threads_share_a_ledger(ledger, path):
    def write(thread):
        for number in range(20):
            ledger.record_decision(record())
            ledger.record_outcomes([outcome(thread * 100 + number, 0.0)])

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.dropped == 0
    with LedgerReader(path) as reader:
        assert len(reader.list_decisions()) == 80
        assert len(list(reader.outcomes())) == 80


def foreign(path):
    sqlite3.connect(path).execute("CREATE TABLE mine (x)").connection.commit()


def newer(path):
    Ledger(path, config=Config()).close()
    sqlite3.connect(path).execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def broken(path):
    path.write_bytes(b"not a database, but long enough to have a header" * 30)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(foreign, "not a ledger of H-MAS"), (newer, "is newer than this"), (broken, "not a usable")],
)
@pytest.mark.parametrize("use", [LedgerReader, lambda path: Ledger(path, config=Config())])
def test_a_file_that_is_no_ledger_is_named_and_left_alone(tmp_path, spoil, words, use):
    path = tmp_path / "l.sqlite"
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=words) as caught:
        use(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert path.read_bytes() == before


def test_reading_a_missing_ledger_or_decision_says_what_to_do(path, ledger, tmp_path):
    with pytest.raises(LedgerError, match="no ledger there; `hmas run` writes one"):
        LedgerReader(tmp_path / "none.sqlite")
    with LedgerReader(path) as reader, pytest.raises(LedgerError, match="no decision 42"):
        reader.get_decision(42)


def test_a_ledger_that_is_only_just_begun_is_not_mistaken_for_something_else(tmp_path):
    path = tmp_path / "l.sqlite"
    path.touch()
    with pytest.raises(LedgerError, match="empty; a controller that has just begun"):
        LedgerReader(path)
    Ledger(path, config=Config()).close()
    with LedgerReader(path) as reader:
        assert reader.list_decisions() == []


def test_a_folder_that_cannot_be_made_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "file" / "l.sqlite", config=Config())


def test_a_minimal_record_is_a_record(ledger, path):
    minimal = DecisionRecord("short", 1.0, "advise", "start", {}, 0)
    decision_id = ledger.record_decision(minimal)
    with LedgerReader(path) as reader:
        assert reader.get_decision(decision_id).record == minimal
