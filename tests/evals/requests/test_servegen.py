"""Are ServeGen's clients drawn as published, by seed, and are errors named?"""

import json
import os
from collections import Counter

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.requests import servegen_files
from evals.requests.readers import format_of
from evals.requests.servegen import Model, draw_requests, parse_draw, slo_class_of
from evals.requests.servegen_files import (
    fetch_servegen,
    find_servegen,
    read_client,
    read_windows,
)
from evals.requests.trace import TraceError
from evals.suite.traffic_spec import DrawSpec
from tests.command_line import run_hmas
from tests.evals.servegen_samples import CHAT, WINDOWS, write_client, write_model

TWO_HOURS = DrawSpec(hours=(0.0, 2.0))


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "small")


def sent(drawn, tenant):
    """Arrivals, prompts and answers of a tenant."""
    columns = drawn.columns
    (number,) = [i for i, one in enumerate(columns.senders) if one.tenant == tenant]
    own = columns.sender == number
    return columns.arrival_s[own], columns.prompt_tokens[own], columns.output_tokens[own]


def test_each_ten_minutes_have_the_published_requests_with_the_lengths_of_their_time(model):
    drawn = draw_requests(model, TWO_HOURS, seed=5)
    arrival_s, prompts, answers = sent(drawn, "client-3")
    assert drawn.columns.arrival_s[0] == 0.0
    assert (np.diff(drawn.columns.arrival_s) >= 0).all()
    # The clock begins with the first arrival, at most ten minutes into the first hour.
    for first, behind, start_s in ((0, 60, 0), (60, 180, 1200), (180, 186, 3600)):
        assert (arrival_s[first:behind] >= start_s - 600).all(), start_s
        assert (arrival_s[first:behind] <= start_s + 600).all()
    assert len(arrival_s) == 186
    assert Counter(answers.tolist()) == {400: 180, 9: 6}
    assert set(prompts[:180].tolist()) == {100, 300}
    assert set(prompts[180:].tolist()) == {7}
    assert len(sent(drawn, "client-12")[0]) == 6


def test_gaps_are_of_the_published_family_and_shape(tmp_path):
    """The coefficient of variation of Gamma gaps of shape k is 1/sqrt(k)."""
    for shape, expected in ((4.0, 0.5), (0.25, 2.0)):
        write_client(tmp_path / "m", 1, (f"0,50,1,Gamma,{shape},1",))
        gaps = np.diff(read_arrivals(tmp_path / "m"))
        assert gaps.std() / gaps.mean() == pytest.approx(expected, rel=0.05)
    write_client(tmp_path / "m", 1, ("0,50,1,Weibull,0.5,1",))
    gaps = np.diff(read_arrivals(tmp_path / "m"))
    # Of Weibull ones of shape 1/2: sqrt(5).
    assert gaps.std() / gaps.mean() == pytest.approx(5**0.5, rel=0.1)


def read_arrivals(folder):
    return draw_requests(folder, DrawSpec(), seed=1).columns.arrival_s


def test_the_burstiest_client_sends_all_at_once(tmp_path):
    write_client(tmp_path / "m", 1, ("0,0.5,99,Gamma,0.00001,1", "600,0.5,99,Gamma,0.00001,1"))
    arrivals = read_arrivals(tmp_path / "m")
    assert len(arrivals) == 600
    assert np.isfinite(arrivals).all()
    assert len(np.unique(arrivals.round(3))) <= 4


def test_shares_are_those_published(tmp_path):
    write_client(tmp_path / "m", 1, ("0,100,1,Gamma,1,1",), {0: ({10: 1.0, 20: 3.0}, {0: 1, 5: 1})})
    columns = draw_requests(tmp_path / "m", DrawSpec(), seed=1).columns
    assert (columns.prompt_tokens == 20).mean() == pytest.approx(0.75, abs=0.01)
    assert set(columns.output_tokens.tolist()) == {1, 5}  # no answer is shorter than one token


def test_the_same_seed_draws_the_same_and_an_hour_alone_is_that_hour_of_the_day(model):
    one, same, other = (draw_requests(model, TWO_HOURS, seed) for seed in (1, 1, 2))
    assert one.columns.requests() == same.columns.requests()
    assert one.columns.arrival_s.tolist() != other.columns.arrival_s.tolist()
    alone = draw_requests(model, DrawSpec(hours=(1.0, 2.0)), 1)
    late = one.columns.requests()[-len(alone.columns) :]
    first_s = late[0].arrival_s
    assert [r.arrival_s for r in alone.columns.requests()] == pytest.approx(
        [r.arrival_s - first_s for r in late]
    )
    assert [r.prompt_tokens for r in alone.columns.requests()] == [r.prompt_tokens for r in late]


def test_clients_are_drawn_by_seed(model):
    two = DrawSpec(hours=(0, 2), clients=2)
    drawn = {
        tuple(one.tenant for one in draw_requests(model, two, seed).columns.senders)
        for seed in range(20)
    }
    assert len(drawn) == 3
    assert all(len(set(tenants)) == 2 for tenants in drawn)


DAY = ("0,0.1,1,Gamma,1,1", "7200,0.1,1,Gamma,1,1")
NIGHTS = tuple(f"{3600 * hour},0.1,1,Gamma,1,1" for hour in range(24))


@pytest.mark.parametrize(
    ("prompts", "answers", "reasons", "windows", "expected"),
    [
        ({999: 1.0}, {17: 1.0}, False, DAY, "conversational"),
        ({1000: 1.0}, {3999: 1.0}, False, DAY, "document"),
        ({5000: 1.0}, {4000: 1.0}, True, DAY, "batch"),
        ({50: 1.0}, {16: 1.0}, False, DAY, "interactive"),
        ({50: 1.0}, {500: 1.0}, True, DAY, "interactive"),
        ({50: 1.0}, {501: 1.0}, True, DAY, "conversational"),
        ({50: 0.6, 9000: 0.4}, {10: 0.4, 900: 0.6}, False, DAY, "conversational"),
        ({50: 1.0}, {16: 1.0}, False, NIGHTS, "batch"),
        ({50: 1.0}, {16: 1.0}, False, DAY[:1], "batch"),
    ],
)
def test_a_client_has_the_class_of_what_it_sends(
    tmp_path, prompts, answers, reasons, windows, expected
):
    write_client(tmp_path, 1, windows, {0: (prompts, answers)}, reasons=reasons)
    windows = read_windows(tmp_path / "chunk-1-trace.csv", [])
    client = read_client(1, windows, tmp_path / "chunk-1-dataset.json")
    assert slo_class_of(client, (0.0, 3.0)) == expected


def test_medians_are_over_requests_not_over_the_hours(tmp_path):
    """180 requests with answers of 400 tokens, 6 with answers of 9 in as long a time."""
    write_client(tmp_path, 1)
    windows = read_windows(tmp_path / "chunk-1-trace.csv", [])
    client = read_client(1, windows, tmp_path / "chunk-1-dataset.json")
    assert slo_class_of(client, (0.0, 2.0)) == "conversational"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0,0.1,1.0,Gamma,1.0", "line: expected 6 fields, got 5"),
        ("x,0.1,1.0,Gamma,1.0,1", "start: expected a number >= 0, got 'x'"),
        ("0,-1,1.0,Gamma,1.0,1", "rate: expected a number >= 0, got '-1'"),
        ("0,nan,1.0,Gamma,1.0,1", "rate: expected a number >= 0, got 'nan'"),
        ("0,0.1,1.0,,1.0,1", "family: expected Gamma or Weibull, got ''"),
        ("0,0.1,1.0,Gamma,0,1", "shape: expected a number >= 1e-09, got '0'"),
    ],
)
def test_a_broken_line_is_left_out_and_named(model, line, says):
    path = model / "chunk-3-trace.csv"
    path.write_text("\n".join([line, *WINDOWS]))
    drawn = draw_requests(model, TWO_HOURS, 0)
    assert drawn.malformed == (f"{path}:1: {says}",)
    assert len(drawn.columns) == 378


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object with a start"),
        ('{"noon": {}}', "noon: start: expected a number >= 0, got 'noon'"),
        ('{"0": 3}', "0: input_tokens: expected a dictionary as text, got None"),
        ('{"0": {"input_tokens": "{1: 2, 3}", "output_tokens": "{1: 1}"}}', "0: input_tokens: exp"),
        ('{"0": {"input_tokens": "{1: 1}", "output_tokens": "{a: 1}"}}', "0: output_tokens: exp"),
        ('{"0": {"input_tokens": "{1: -1}", "output_tokens": "{1: 1}"}}', "tokens and shares >= 0"),
        ('{"0": {"input_tokens": "{}", "output_tokens": "{1: 1}"}}', "0: input_tokens: no lengths"),
        ('{"9": {"input_tokens": "{1: 1}", "output_tokens": "{1: 1}"}}', "9: input_tokens: no len"),
    ],
)  # fmt: skip
def test_a_broken_dataset_is_an_error_that_names_file_and_key(model, text, says):
    path = model / "chunk-3-dataset.json"
    path.write_text(text)
    with pytest.raises(TraceError) as error:
        draw_requests(model, DrawSpec(), 0)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)


@given(trace=st.binary(max_size=100), dataset=st.binary(max_size=100))
def test_no_file_makes_the_reader_crash(tmp_path_factory, trace, dataset):
    folder = write_model(tmp_path_factory.mktemp("fuzz"))
    (folder / "chunk-3-trace.csv").write_bytes(b"0,0.1,1.0,Gamma,1.0,1\n" + trace)
    (folder / "chunk-3-dataset.json").write_bytes(dataset)
    said = str(folder)
    try:
        draw_requests(folder, DrawSpec(), 0)
    except TraceError as error:
        said = str(error)
    assert str(folder) in said


def test_a_client_without_lengths_is_left_out_and_its_share_is_said(model):
    (model / "chunk-7-dataset.json").unlink()
    drawn = draw_requests(model, TWO_HOURS, 0)
    (note,) = drawn.notes
    assert note == (
        f"{model / 'chunk-7-dataset.json'}: missing; client 7 is left out, 49.2% of the requests "
        "that were published"
    )
    assert {one.tenant for one in drawn.columns.senders} == {"client-3", "client-12"}


def test_what_cannot_be_drawn_says_why(model, tmp_path):
    with pytest.raises(TraceError, match=r"hours 5\.\.6: no usable request"):
        draw_requests(model, DrawSpec(hours=(5.0, 6.0)), 0)
    with pytest.raises(TraceError, match="clients: 9 wanted, 2 send then"):
        draw_requests(model, DrawSpec(hours=(0.0, 1.0), clients=9), 0)
    with pytest.raises(TraceError, match="take one of its folders: small"):
        draw_requests(tmp_path, DrawSpec(), 0)
    write_client(model, 5, ("0,100000,1,Gamma,1,1",), {0: CHAT})
    with pytest.raises(TraceError, match="60,000,378 requests"):
        draw_requests(model, DrawSpec(), 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hour=1..2", "hour=1..2: expected hours"),
        ("clients=1,clients=1", "each once"),
        ("hours=9", "hours=9"),
        ("hours=9..8", "hours that grow"),
        ("clients=0", "clients=0: expected"),
        ("clients=many", "clients=many"),
    ],
)
def test_a_draw_that_is_none_says_why(model, text, says):
    with pytest.raises(ValueError, match="expected") as error:
        parse_draw(text)
    assert says in str(error.value)
    done = run_hmas("plan", model, "--draw", text)
    assert done.exit_code == 2
    assert f"--draw {text.partition(',')[0].partition('=')[0]}" in done.stderr


def test_a_draw_is_read():
    assert parse_draw("hours=9.5..17,clients=20") == DrawSpec(hours=(9.5, 17.0), clients=20)
    assert parse_draw("clients=3") == DrawSpec(clients=3)


def test_a_folder_is_planned_for_and_each_client_has_its_class(model):
    assert format_of(model) == "servegen"
    done = run_hmas(
        "plan", model, "--draw", "hours=0..2", "--replicas", "1", "--policy", "edf+slack", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    stock, ours = json.loads(done.stdout)["results"]
    assert stock["requests"] == ours["requests"] == 378
    wrong = run_hmas("plan", model, "--draw", "hours=0..2", "--format", "azure")
    assert "--draw hours=0..2: goes with --format servegen" in wrong.stderr


def fetched(folder, answer):
    asked = []

    def handle(request):
        asked.append(str(request.url))
        return answer(request.url.path)

    with httpx.Client(transport=httpx.MockTransport(handle)) as client:
        fetch_servegen("deepseek-r1", folder, lambda done, total: None, client)
    return asked


def test_clients_are_fetched_whole_or_not_at_all_and_once(tmp_path, monkeypatch):
    monkeypatch.setitem(servegen_files.FETCHED, "deepseek-r1", 2)
    write_client(tmp_path / "source", 0)
    files = {
        kind: (tmp_path / "source" / f"chunk-0-{kind}").read_bytes()
        for kind in ("trace.csv", "dataset.json")
    }

    def good(path):
        return httpx.Response(200, content=files[path.rpartition("-")[2]])

    with pytest.raises(TraceError, match="expected 6 fields"):
        fetched(tmp_path, lambda path: httpx.Response(200, content=b"<html>"))
    assert list((tmp_path / "deepseek-r1").iterdir()) == []
    with pytest.raises(TraceError, match=r"404.*HMAS_TRACES.*take another trace"):
        fetched(tmp_path, lambda path: good(path) if "chunk-0" in path else httpx.Response(404))
    asked = fetched(tmp_path, good)
    assert asked == [
        f"{servegen_files.SOURCE}/deepseek-r1/chunk-1-{kind}" for kind in files
    ]  # what was there is not asked for again
    assert len(draw_requests(tmp_path / "deepseek-r1", TWO_HOURS, 0).columns) == 2 * 186


@pytest.mark.skipif(not os.environ.get("HMAS_TRACES"), reason="HMAS_TRACES names no traces")
def test_the_real_day_of_deepseek_r1_has_the_published_requests():
    folder = find_servegen("deepseek-r1")
    if folder is None:
        pytest.skip("no deepseek-r1 on this machine")
    columns = draw_requests(folder, DrawSpec(), seed=0).columns
    assert len(columns) == 1_383_669
    assert len(columns.senders) == 73
    assert {one.slo_class for one in columns.senders} == {
        "interactive", "conversational", "document", "batch",
    }  # fmt: skip


@pytest.mark.skipif(not os.environ.get("HMAS_TRACES"), reason="HMAS_TRACES names no traces")
@pytest.mark.parametrize("name", ["m-small", "deepseek-r1"])
def test_of_real_clients_each_class_sends_a_good_part_and_none_nearly_all(name):
    folder = find_servegen(name)
    if folder is None:
        pytest.skip(f"no {name} on this machine")
    model = Model.read(folder)
    sent: dict[str, float] = {}
    for one in model.senders(0.0, model.hours[1] * 3600, None, 0):
        requests = sum(stretch.requests for stretch in one.stretches)
        sent[one.who.slo_class] = sent.get(one.who.slo_class, 0.0) + requests
    shares = {slo_class: count / sum(sent.values()) for slo_class, count in sent.items()}
    assert len(shares) == 4
    assert max(shares.values()) < 0.7
    assert sorted(shares.values())[-3] > 0.1
