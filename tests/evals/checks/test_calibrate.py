"""Does a calibration find the machine's coefficients, and does its log say what ran?"""

import asyncio
import json
from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.checks.fidelity.calibrate import Calibration, cells, rungs
from evals.checks.fidelity.report import (
    calibration_document,
    calibration_sheet,
    write_calibration,
)
from evals.checks.fidelity.server import OtherLoad, warning
from evals.live.load_generator import bodies_for, closed_loop
from evals.live.server import Server
from evals.machines.fit import fit_cost, step_errors
from evals.machines.steps import CalibrationError, line_of, read_steps, steps_of
from evals.suite.toml_file import read_toml
from serving.contracts import CostCoefficients, Envelope
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile
from serving.engines.simulated import SimulatedEngine
from serving.perception.cost_model import StepShape
from tests.evals.live.test_load_generator import Server as FailingServer
from tests.evals.live.test_load_generator import serving
from tests.serving.samples import mixed_load, profile

COST = CostCoefficients(20e-3, 1.5e-3, 3e-3, 2e-6, 1e-6)
ENVELOPE = Envelope(32, 2048, 2048, 700, 128)
counts = st.integers(0, 10**7)


def drawn_steps(count=2000, noise=0.0, cost=COST, seed=1):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        decodes = int(rng.integers(0, 33))
        prefill = int(rng.integers(1, 2048)) if i % 3 == 0 or not decodes else 0
        shape = StepShape(
            prefill, decodes, int(decodes * rng.integers(10, 1500)),
            prefill * int(rng.integers(0, 500)),
        )  # fmt: skip
        took_s = shape.seconds(cost) * rng.gamma(1 / noise**2, noise**2) if noise else None
        seconds = shape.seconds(cost) if took_s is None else took_s
        rows.append((
            float(i), seconds, float(shape.prefill_tokens), float(shape.decodes),
            float(shape.decode_context), float(shape.prefill_square),
        ))  # fmt: skip
    return steps_of(rows)


def calibration(steps):
    fit = fit_cost(steps)
    facts = {
        "date": "2026-01-01 00:00 UTC", "cpu": '2 x "CPU"', "accelerator": "", "kernel": "6.1",
        "python": "3.11", "vllm": "0.32.0", "niceness": 0, "model": "m", "load_s": 60.0, "parts": 3,
        "rungs": [[1, 2048]], "others_cpu_share": 0.31,
        "server_arguments": ["--max-num-seqs", "32"],
    }  # fmt: skip
    made = EngineProfile("mine", 'measured on 2 x "CPU"', fit.cost, 32, 2048, 700, 128, 2048)
    return Calibration(made, fit, 0.012, facts, steps)


def as_array(cost):
    return np.array([
        cost.base_s, cost.per_prefill_token_s, cost.per_decode_s, cost.per_context_token_s,
        cost.per_square_s,
    ])  # fmt: skip


def test_exact_steps_give_their_coefficients_back():
    fit = fit_cost(drawn_steps())
    assert as_array(fit.cost) == pytest.approx(as_array(COST), rel=1e-6)
    assert fit.error_p90 < 1e-6
    assert fit.stalls == 0


def test_noise_leaves_the_coefficients_near_and_the_total_time_right():
    fit = fit_cost(drawn_steps(noise=0.15))
    assert as_array(fit.cost) == pytest.approx(as_array(COST), rel=0.25)
    assert abs(fit.total_error) < 1e-3
    assert 0.05 < fit.error_p50 < 0.15


def test_stalls_are_counted_and_left_out():
    steps = drawn_steps()
    slow = steps.seconds.copy()
    slow[::100] *= 50
    fit = fit_cost(replace(steps, seconds=slow))
    assert fit.stalls == 20
    assert as_array(fit.cost) == pytest.approx(as_array(COST), rel=1e-6)


def test_a_cost_that_would_be_negative_is_zero():
    fit = fit_cost(drawn_steps(cost=replace(COST, per_context_token_s=-1e-7)))
    assert fit.cost.per_context_token_s == 0.0


@pytest.mark.parametrize("column", range(4))
def test_what_never_occurred_is_named(column):
    steps = drawn_steps()
    steps.shapes[:, column] = 0
    names = ("prefill_tokens", "decodes", "decode_context", "prefill_square")
    with pytest.raises(CalibrationError, match=f"any {names[column]}"):
        fit_cost(steps)


def test_too_few_steps_are_refused():
    with pytest.raises(CalibrationError, match="99 steps were measured, 100 are needed"):
        fit_cost(drawn_steps(99))


def test_the_error_of_a_machine_half_as_fast_is_half_the_time():
    assert step_errors(drawn_steps(cost=CostCoefficients(*(2 * as_array(COST)))), COST)[
        "total_error"
    ] == pytest.approx(-0.5)


@given(st.lists(st.tuples(st.floats(0, 4e9), st.floats(0, 1e3), counts, counts, counts, counts)))
@settings(max_examples=40, deadline=None)
def test_the_log_reads_back_what_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("log") / "steps.csv"
    lines = [line_of(row[0], row[1], StepShape(*row[2:])) for row in rows]
    path.write_text("".join(lines) + "17.2,0")  # the last one is being written
    steps = read_steps(path)
    assert len(steps) == len(rows)
    for i, row in enumerate(rows):
        assert (steps.ended_s[i], steps.seconds[i]) == pytest.approx(row[:2], abs=1e-5)
        assert tuple(steps.shapes[i]) == row[2:]


def test_a_broken_line_and_a_missing_log_are_named(tmp_path):
    path = tmp_path / "steps.csv"
    with pytest.raises(CalibrationError, match=f"no step log at {path}.*HMAS_STEP_LOG"):
        read_steps(path)
    path.write_text("1,2,3,4,5,6\nhello\n")
    with pytest.raises(CalibrationError, match=rf"{path}:2: expected 6 numbers, got 'hello'"):
        read_steps(path)


def test_a_logged_engine_schedules_the_same_and_its_log_gives_the_machine_back(
    tmp_path, monkeypatch
):
    from evals.checks.fidelity.step_log import LoggedScheduler

    machine = replace(profile(900, max_active_requests=32), cost=COST, token_budget=512)
    load = mixed_load(150, 5.0, seed=4, mean_output_tokens=20.0)
    plain = SimulatedEngine(machine, EngineSettings()).run(load)
    path = tmp_path / "steps.csv"
    monkeypatch.setenv("HMAS_STEP_LOG", str(path))
    monkeypatch.setattr("serving.engines.simulated.HMASScheduler", LoggedScheduler)
    logged = SimulatedEngine(machine, EngineSettings())
    assert logged.run(load) == plain
    steps = read_steps(path)
    assert len(steps) == logged.snapshot().batch.steps
    assert steps.seconds == pytest.approx(steps.predicted_s(COST), abs=2e-6)  # no idle time
    assert as_array(fit_cost(steps).cost) == pytest.approx(as_array(COST), rel=0.02)


def test_a_logged_engine_without_a_file_says_so(monkeypatch):
    from evals.checks.fidelity.step_log import LoggedScheduler

    monkeypatch.delenv("HMAS_STEP_LOG", raising=False)
    monkeypatch.setattr("serving.engines.simulated.HMASScheduler", LoggedScheduler)
    with pytest.raises(ValueError, match="HMAS_STEP_LOG is not set"):
        SimulatedEngine(profile(900), EngineSettings())


def test_the_load_goes_from_one_client_to_a_full_batch_under_two_step_sizes():
    plan = rungs(ENVELOPE)
    assert {rung.token_budget for rung in plan} == {2048, 256}
    for budget in (2048, 256):
        ladder = [rung.concurrency for rung in plan if rung.token_budget == budget]
        assert ladder == sorted(set(ladder))
        assert (ladder[0], ladder[-1]) == (1, 32)


@given(st.integers(1, 600), st.integers(1, 16_384))
def test_no_rung_asks_for_more_than_the_engine_has(most, budget):
    for rung in rungs(Envelope(most, budget, 2048, 700, 128)):
        assert 1 <= rung.concurrency <= most
        assert 1 <= rung.token_budget <= budget


def test_every_cell_of_the_grid_is_drawn_and_the_seed_decides():
    drawn = cells(2048, 3)
    sizes = {(request.prompt_tokens, request.output_tokens) for request in drawn}
    assert sizes == {(prompt, output) for prompt in (16, 128, 512, 1536) for output in (8, 64)}
    assert drawn == cells(2048, 3)
    assert drawn != cells(2048, 4)


def test_a_closed_loop_ends_with_the_first_failure_that_is_not_allowed():
    server = FailingServer(lambda _: 500)

    async def load():
        async with serving(server) as url:
            return await closed_loop(
                Server(url, "m"),
                bodies_for(Server(url, "m"), cells(2048, 0), 0),
                concurrency=3,
                seconds=inf,
                run_id="x-",
            )

    finished_s, failures = asyncio.run(load())
    assert finished_s == []
    assert "HTTP 500" in failures[0]
    assert 1 <= len(server.bodies) <= 3


def test_the_profile_reads_back_and_says_where_it_comes_from(tmp_path):
    made = calibration(drawn_steps(noise=0.1))
    write_calibration(made, tmp_path, "hmas calibrate")
    path = tmp_path / "mine.toml"
    read = read_toml(path, EngineProfile)
    assert replace(read, cost=made.profile.cost) == made.profile
    assert as_array(read.cost) == pytest.approx(as_array(made.profile.cost), rel=1e-3)
    text = path.read_text()
    for fact in (
        "2026-01-01", "0.32.0", '2 x "CPU"', "p90", "--max-num-seqs 32", "2000 steps",
        "others took 31%",
    ):  # fmt: skip
        assert fact in text


def test_sheet_json_and_plot_tell_of_the_same_fit(tmp_path):
    made = calibration(drawn_steps(noise=0.1))
    document = calibration_document(made)
    assert document["fit"]["samples"] == 2000
    assert document["overhead_s"] == 0.012
    assert [row[0] for row in calibration_sheet(made).rows] == list(document["cost"])
    write_calibration(made, tmp_path, "hmas calibrate")
    assert json.loads((tmp_path / "calibration.json").read_text()) == document
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")


def test_other_load_is_a_share_or_unknown_and_only_a_large_one_warns():
    import os

    share = OtherLoad(os.getpid()).share()
    assert share is not None
    assert 0 <= share <= 1
    assert OtherLoad(None).share() is None
    assert warning(None) == warning(0.01) == ""
    assert "took 62% of the CPUs" in warning(0.62)
