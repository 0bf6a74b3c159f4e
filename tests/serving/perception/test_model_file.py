"""Does what was learned come back after a restart, and only where it fits?"""

import json
import logging
import math
import random
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.core.lengths import BINS, MAX_HISTOGRAMS
from serving.perception.cost_model import DEFAULT_COST, CostModel, StepShape
from serving.perception.length_model import LengthModel
from serving.perception.model_file import THREAD_NAME, ModelFile, fingerprint, rank_path

PRINT = {"model": "smollm2", "tensor_parallel_size": "1"}
SHAPE = StepShape(700, 12, 9000, 50_000)
GROUP = LengthModel.group("acme", 500, 1024)


def taught(steps: int = 200, seed: int = 1) -> tuple[CostModel, LengthModel]:
    rng, cost, lengths = random.Random(seed), CostModel(), LengthModel()
    for _ in range(steps):
        shape = StepShape(rng.randrange(2048), rng.randrange(64), rng.randrange(10**5), 0)
        cost.learn(shape, 0.02 + 3e-5 * shape.prefill_tokens + 1e-4 * shape.decodes)
        lengths.learn(LengthModel.group(f"t{rng.randrange(3)}", 500, 1024), rng.randrange(900))
    return cost, lengths


def jsoned(state: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(state, default=lambda array: array.tolist()))
    return plain


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sub" / "perception.json"


@pytest.fixture
def saved(path: Path) -> dict[str, Any]:
    ModelFile(path, PRINT).close(*taught())
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def loaded(path: Path, print_: dict[str, str] = PRINT) -> tuple[str, CostModel, LengthModel]:
    cost, lengths = CostModel(), LengthModel()
    return ModelFile(path, print_).load(cost, lengths), cost, lengths


def assert_ignored(path: Path, *reasons: str) -> None:
    """The answer names file and reason, and both models are as new."""
    said, cost, lengths = loaded(path)
    assert said.startswith(f"learned models in {path} ignored: ")
    assert [reason for reason in reasons if reason not in said] == []
    assert "\n" not in said
    assert cost.coefficients == DEFAULT_COST
    assert jsoned(lengths.state()) == jsoned(LengthModel().state())


@settings(deadline=None, max_examples=40)
@given(st.lists(
    st.tuples(st.integers(0, 9000), st.integers(0, 300), st.integers(0, 10**6), st.floats(-1, 99)),
    max_size=80,
), st.lists(
    st.tuples(st.text(min_size=1, max_size=64), st.integers(1, 10**6), st.integers(0, 10**6)),
    max_size=80,
))  # fmt: skip
def test_what_was_learned_comes_back_exactly(steps, answers):
    cost, lengths = CostModel(), LengthModel()
    for prefill, decodes, context, measured_s in steps:
        cost.learn(StepShape(prefill, decodes, context, prefill * 7), measured_s)
    for tenant, most, length in answers:
        lengths.learn(LengthModel.group(tenant, 100, most), length)
    again, lengths_again = CostModel(), LengthModel()
    again.restore(jsoned(cost.state()))
    lengths_again.restore(jsoned(lengths.state()))
    assert jsoned(again.state()) == jsoned(cost.state())
    assert jsoned(lengths_again.state()) == jsoned(lengths.state())
    assert again.predict(SHAPE) == cost.predict(SHAPE)
    assert lengths_again.coverage == lengths.coverage


def test_a_restart_goes_on_where_the_engine_stopped(path):
    cost, lengths = taught()
    ModelFile(path, PRINT).close(cost, lengths)
    said, cost_again, lengths_again = loaded(path)
    assert said == f"learned models restored from {path}: 3 groups"
    for seed in range(40):  # both go on learning the same, through a refit
        shape = StepShape(100 * seed, seed, 30 * seed, 0)
        for model in (cost, cost_again):
            model.learn(shape, 0.03)
        for known in (lengths, lengths_again):
            known.learn(GROUP, 30 + seed)
    assert cost_again.predict(SHAPE) == pytest.approx(cost.predict(SHAPE), rel=0.05)
    assert lengths_again.remaining(GROUP, 0, 1024) == lengths.remaining(GROUP, 0, 1024)


def test_a_machine_that_became_slower_is_noticed_after_a_restart():
    cost, again = taught()[0], CostModel()
    again.restore(jsoned(cost.state()))
    for _ in range(600):
        again.learn(SHAPE, 20 * cost.predict(SHAPE))
    assert again.predict(SHAPE) == pytest.approx(20 * cost.predict(SHAPE), rel=0.2)


def test_a_copy_does_not_change_with_its_model():
    cost, lengths = taught()
    states = cost.state(), lengths.state()
    before = [jsoned(state) for state in states]
    cost.learn(SHAPE, 0.06)
    lengths.learn(LengthModel.group("t1", 500, 1024), 800)
    assert [jsoned(state) for state in states] == before
    assert jsoned(cost.state()) != before[0]


def test_the_first_start_says_that_there_is_nothing_yet(path):
    assert loaded(path)[0] == f"no learned models in {path} yet: starting with the defaults"


@pytest.mark.parametrize(("change", "reason"), [
    ({"version": 2}, "its version is 2, and only 1 is read"),
    ({"version": None}, "its version is None"),
    ({"fingerprint": {**PRINT, "tensor_parallel_size": "8"}},
     "learned by another engine: tensor_parallel_size '8', here '1'"),
    ({"fingerprint": {"model": "smollm2"}}, "tensor_parallel_size None, here '1'"),
    ({"fingerprint": {**PRINT, "dtype": "half"}}, "dtype 'half', here None"),
    ({"fingerprint": 7}, "model None, here 'smollm2'"),
    ({"cost": {}}, "coefficients is missing"),
    ({"cost": {"coefficients": "x"}}, "coefficients is not an array of numbers"),
    ({"cost": 7}, "cost is missing"), ({"cost": None}, "cost is missing"),
    ({"lengths": []}, "lengths is missing"), ({"lengths": {}}, "groups is not a list"),
])  # fmt: skip
def test_a_file_of_another_kind_is_ignored(path, saved, change, reason):
    path.write_text(json.dumps({**saved, **change}))
    assert_ignored(path, reason)


@pytest.mark.parametrize("key", ["version", "fingerprint", "cost", "lengths"])
def test_a_file_that_lacks_a_part_is_ignored(path, saved, key):
    del saved[key]
    path.write_text(json.dumps(saved))
    assert_ignored(path)


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 0.999))
def test_a_truncated_file_is_ignored(tmp_path_factory, share):
    path = tmp_path_factory.mktemp("cut") / "p.json"
    ModelFile(path, PRINT).close(*taught(40))
    text = path.read_text().rstrip()
    path.write_text(text[: int(share * len(text))])
    assert_ignored(path, "not JSON, or only a part of it")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 10**6, b"[]", b"1" * 5000, b"null"])
def test_a_file_that_holds_something_else_is_ignored(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    assert_ignored(path)


def test_a_file_that_cannot_be_read_or_is_too_large_is_ignored(path):
    path.mkdir(parents=True)
    assert_ignored(path, "IsADirectoryError")
    path.rmdir()
    with path.open("wb") as huge:
        huge.truncate(33 * 1024 * 1024)
    assert_ignored(path, "bytes, more than")


def refusal(call: Callable[[], None]) -> str:
    """What the ValueError of `call` says; empty if it raises none."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


HOSTILE = [math.nan, math.inf, -1.0, -math.inf, 1e300, "soon", None, [], {}, 10**400, True]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:6])
@pytest.mark.parametrize("key", ["coefficients", "margin", "bias", "q90", "gram", "moment"])
def test_hostile_costs_are_refused_or_harmless(key, value):
    state = jsoned(taught()[0].state())
    for change in ({key: value}, {key: [value] * 5}, {key: [[value] * 5] * 5}):
        model = CostModel()
        if error := refusal(lambda: model.restore({**state, **change})):  # noqa: B023
            assert error.startswith(key)
            assert jsoned(model.state()) == jsoned(CostModel().state()), "nothing of it is used"
        for _ in range(70):
            model.learn(SHAPE, 0.05)
        assert 0 < model.predict(SHAPE) < math.inf


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:6])
@pytest.mark.parametrize("key", ["groups", "counts", "all", "seen", "covered"])
def test_hostile_lengths_are_refused_or_harmless(key, value):
    state = jsoned(taught()[1].state())
    groups = [["a", value, 1], [value, 1, 1], ["a", 1], "abc", ["", 1, 1], ["x" * 65, 1, 1]]
    for change in (
        {key: value}, {key: [value] * BINS}, {key: [[value] * BINS] * len(state["groups"])},
        {"groups": groups[:3]}, {"groups": groups[3:]},
    ):  # fmt: skip
        model = LengthModel()
        if refusal(lambda: model.restore({**state, **change})):  # noqa: B023
            assert jsoned(model.state()) == jsoned(LengthModel().state()), "nothing of it is used"
        for _ in range(20):
            model.learn(GROUP, 90)
        assert 1 <= model.remaining(GROUP, 0, 1024) <= 1024


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e-3, 1e300, None, "soon"])
@pytest.mark.parametrize("key", ["coefficients", "gram", "moment", "counts", "all"])
def test_one_number_that_makes_no_sense_is_enough(key, value):
    cost, lengths = taught()
    model, state = (cost, jsoned(cost.state())) if key in cost.state() else (
        lengths, jsoned(lengths.state())
    )  # fmt: skip
    inner = state[key]
    while isinstance(inner[0], list):
        inner = inner[0]
    inner[0] = value
    with pytest.raises(ValueError, match=f"^{key} "):
        model.restore(state)


def test_more_or_equal_groups_than_a_model_may_have_are_refused():
    row = [1.0] * BINS
    empty = jsoned(LengthModel().state())
    many = [[f"t{i}", 1, 1] for i in range(MAX_HISTOGRAMS + 1)]
    for groups in (many, [["a", 1, 1], ["a", 1, 1]]):
        with pytest.raises(ValueError, match=f"at most {MAX_HISTOGRAMS}"):
            LengthModel().restore({**empty, "groups": groups, "counts": [row] * len(groups)})


# -- writing ----------------------------------------------------------------------------


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


def test_saving_happens_in_one_thread_that_ends_with_close(path):
    file, (cost, lengths) = ModelFile(path, PRINT), taught()
    assert threads() == [], "none before there is something to write"
    for _ in range(20):
        file.save_soon(cost, lengths)
        assert len(threads()) == 1
    cost.learn(SHAPE, 0.06)
    file.close(cost, lengths)
    assert threads() == []
    assert jsoned(cost.state()) == json.loads(path.read_text())["cost"], "the last state"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no draft is left"
    assert path.stat().st_mode & 0o077 == 0, "it names tenants"
    file.close(cost, lengths)


def test_a_save_is_the_state_of_its_moment_and_does_not_wait_for_the_disk(path, monkeypatch):
    file, (cost, lengths) = ModelFile(path, PRINT), taught()
    before, disk, write = jsoned(cost.state()), threading.Event(), file._write
    written = []

    def slow(state: dict[str, Any]) -> None:
        disk.wait(60)
        write(state)
        written.append(json.loads(path.read_text())["cost"])

    monkeypatch.setattr(file, "_write", slow)
    file.save_soon(cost, lengths)
    cost.learn(SHAPE, 0.06)
    for _ in range(50):
        file.save_soon(cost, lengths)
    assert file._jobs.qsize() <= 1, "a slow disk does not pile up copies"
    disk.set()
    file.close(cost, lengths)
    assert written[0] == before
    assert written[-1] == jsoned(cost.state())


def no_folder(path: Path) -> None:
    path.parent.write_text("a file where the folder should be")


def a_folder_in_its_place(path: Path) -> None:
    path.mkdir(parents=True)


@pytest.mark.parametrize("obstacle", [no_folder, a_folder_in_its_place])
def test_what_cannot_be_written_is_said_once_and_never_raised(
    path: Path, obstacle: Callable[[Path], None], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    obstacle(path)
    logger = logging.getLogger("test.obstacle")  # vLLM keeps its own from propagating
    monkeypatch.setattr("serving.perception.model_file.logger", logger)
    file, models = ModelFile(path, PRINT), taught(10)
    file.save_soon(*models)
    file.save_soon(*models)
    file.close(*models)
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert "cannot save learned models" in record.getMessage()
    assert threads() == []


def test_a_full_disk_leaves_the_old_file_as_it_was(path, saved, monkeypatch, caplog):
    monkeypatch.setattr("serving.perception.model_file._parts", full_disk)
    monkeypatch.setattr("serving.perception.model_file.logger", logging.getLogger("test.disk"))
    ModelFile(path, PRINT).close(*taught(10))
    assert json.loads(path.read_text()) == saved
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert "No space left" in caplog.text


def full_disk(state: dict[str, Any]) -> Any:
    yield '{"version": 1, '
    raise OSError(28, "No space left on device")


def test_ranks_write_files_of_their_own(tmp_path):
    assert rank_path(tmp_path / "p.json", 0) == tmp_path / "p.json"
    assert rank_path(tmp_path / "p.json", 1) == tmp_path / "p.rank1.json"
    assert rank_path("models", 3) == Path("models.rank3")


def test_the_fingerprint_tells_engines_apart():
    def config(**changes: Any) -> Any:
        flat = {
            "model": "m", "dtype": "half", "quantization": None, "enforce_eager": False,
            "tensor_parallel_size": 1, "pipeline_parallel_size": 1, "block_size": 16,
            "max_num_batched_tokens": 2048, **changes,
        }  # fmt: skip
        part = SimpleNamespace(**flat)
        return SimpleNamespace(
            model_config=part, cache_config=part, parallel_config=part, scheduler_config=part,
            speculative_config=None,
        )  # fmt: skip

    mine = fingerprint(config())
    assert mine["device"].split()[0] in {"cpu", "cuda", "rocm", "xpu", "tpu"}
    assert mine == fingerprint(config())
    assert json.loads(json.dumps(mine)) == mine
    for change in ({"model": "n"}, {"quantization": "fp8"}, {"tensor_parallel_size": 2}):
        assert fingerprint(config(**change)) != mine
