"""Does the fidelity run report the simulator's errors, and only those?"""

from dataclasses import astuple, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.arms.case import SimulatedCase
from evals.checks.fidelity.fidelity import (
    Replayed,
    compare,
    compare_on,
    errors,
    replay_suite,
    simulate,
    sized_as,
    with_overhead,
    within_target,
)
from evals.checks.fidelity.report import fidelity_plot, fidelity_sheet
from evals.checks.fidelity.server import MeasuredServer, ServerChoice, measured_server
from evals.live.run import Played
from evals.live.server import Server
from evals.machines.steps import CalibrationError, steps_of
from evals.progress import CaseProgress
from evals.requests.offer import Offered, Workload
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.shapes import Span
from evals.suite.suite import load_suite
from serving.contracts import CostCoefficients
from serving.contracts.settings import EngineSettings
from tests.command_line import run_hmas
from tests.evals.samples import outcome
from tests.fakes import ENVELOPE, FakeEngine
from tests.serving.samples import mixed_load, profile

COST = CostCoefficients(5e-3, 60e-6, 60e-6, 3e-8, 1e-9)
MACHINE = replace(profile(2000, max_active_requests=32), cost=COST)
SUITE = "evals/checks/fidelity/cpu_suite.toml"


def case(arm="vllm-fcfs", cost=COST):
    return SimulatedCase(
        scenario="mixed", load=1.0, arm=parse_arm(arm), profile=replace(MACHINE, cost=cost),
        requests=tuple(mixed_load(120, 12.0, seed=2, mean_output_tokens=20.0)),
        settings=EngineSettings(), span=Span(70.0), controller=ControllerOptions(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def ran():
    return simulate(case())


def test_a_simulator_that_is_right_has_no_error(ran):
    run, steps = ran
    result = compare(case(), run, run, steps, steps, overhead_s=0.0).result
    assert all(value == pytest.approx(0, abs=1e-9) for value in result["error"].values())
    assert result["step_model"]["error_p90"] == pytest.approx(0, abs=1e-9)
    assert result["within_target"]


def test_a_profile_of_a_machine_twice_as_fast_shows_in_every_figure(ran):
    run, steps = ran
    live, live_steps = simulate(case(cost=CostCoefficients(*(2 * x for x in astuple(COST)))))
    result = compare(case(), live, run, live_steps, steps, overhead_s=0.0).result
    assert result["step_model"]["total_error"] == pytest.approx(-0.5)
    for name in ("ttft_p50", "ttft_p90", "tpot_p50", "tpot_p90", "step_mean"):
        assert result["error"][name] < -0.15
    assert not result["within_target"]


def test_the_client_s_overhead_goes_into_first_tokens_and_the_errors_without_it_are_told(ran):
    run, steps = ran
    result = compare(case(), run, run, steps, steps, overhead_s=0.05).result
    assert result["error"]["ttft_p50"] > 0
    assert result["error"]["tpot_p50"] == 0
    assert result["error_without_overhead"]["ttft_p50"] == 0
    assert result["simulated"]["ttft_s"]["p50"] == pytest.approx(
        result["live"]["ttft_s"]["p50"] + 0.05
    )


def test_simulated_steps_are_those_of_the_arm_s_own_run():
    stock, rules = (simulate(case(arm)) for arm in ("vllm-fcfs", "fixed-edf+rules"))
    for run, steps in (stock, rules):
        assert len(run.outcomes) == 120
        assert steps.seconds == pytest.approx(steps.predicted_s(COST))
        served = sum(outcome.prompt_tokens for outcome in run.outcomes)
        assert steps.shapes[:, 0].sum() >= served  # recomputed tokens come on top
    assert len(stock[1]) != len(rules[1])


@given(
    st.floats(0, 1), st.floats(0, 2), st.floats(0, 0.06),
    st.sampled_from(["length", "stop", "aborted", "unfinished", "rejected"]),
)  # fmt: skip
def test_overhead_delays_the_first_token_and_never_helps(overhead_s, ttft_s, tpot_s, finish):
    seen = outcome(ttft_s=ttft_s, tpot_s=tpot_s, finish=finish, met=False)
    near = with_overhead(seen, 0.0)
    far = with_overhead(seen, overhead_s)
    assert far.ttft_s == pytest.approx(ttft_s + overhead_s)
    assert far.tpot_s == tpot_s
    assert near.met == (finish in {"stop", "length"} and ttft_s <= 0.5 and tpot_s * 1000 <= 30)
    assert far.met <= near.met


def test_what_never_got_a_token_stays_as_it_is():
    lost = outcome(ttft_s=None, tpot_s=None, finish="unfinished", met=False)
    assert with_overhead(lost, 0.3) is lost


def test_an_error_without_a_value_is_none_and_out_of_target():
    figures = {
        "attainment": 0.5, "ttft_s": {"p50": None, "p90": None}, "tpot_s": {"p50": 1.0, "p90": 1.0},
        "step_s": {"mean": 1.0, "p50": 1.0, "p90": 1.0},
    }  # fmt: skip
    found = errors(figures, figures)
    assert found["ttft_p50"] is None
    assert not within_target(found)


@pytest.mark.parametrize(
    ("points", "share", "within"), [(4.9, 0.14, True), (-5.1, 0, False), (0, -0.16, False)]
)
def test_the_target_is_five_points_and_fifteen_percent(points, share, within):
    error = dict.fromkeys(("ttft_p50", "ttft_p90", "tpot_p50", "tpot_p90"), share)
    assert within_target({"attainment_points": points, **error, "step_p90": 9.0}) is within


def test_a_log_of_another_server_is_an_error(ran):
    run, steps = ran
    with pytest.raises(CalibrationError, match="no step of this run"):
        compare(case(), run, run, steps_of([]), steps, overhead_s=0.0)


def test_an_arm_that_decides_for_itself_is_refused(tmp_path):
    suite = load_suite(Path("evals/suites/demo.toml"))
    server = MeasuredServer(Server("http://none", "m"), FakeEngine(), tmp_path / "s")
    with CaseProgress() as progress, pytest.raises(CalibrationError, match="the arm 'hmas' goes"):
        replay_suite(suite, [], server, progress=progress)


def test_a_replay_is_simulated_with_its_own_requests_arm_and_settings(ran):
    run, steps = ran
    of = case()
    workload = Workload(of.scenario, load_suite(Path(SUITE)).scenarios[0], "any", 0, "", (),
                        of.span, 2048, (), "a trace")  # fmt: skip
    live = Played(workload, of.load, of.arm.name, Offered(of.requests, 1.0), run,
                  {"trace": "a trace", "capacity_rps": 3.0})  # fmt: skip
    replayed = Replayed(live, of.settings, steps, 0.02)
    assert replayed.simulated_on(MACHINE) == of
    with CaseProgress() as progress:
        (only,) = compare_on(MACHINE, [replayed], overhead_s=0.0, progress=progress)
    assert only.result["error"]["attainment_points"] == 0
    assert only.result["within_target"]
    assert (only.result["trace"], only.result["others_cpu_share"]) == ("a trace", 0.02)


def test_the_simulated_engine_has_the_sizes_of_the_live_one():
    sized = sized_as(MACHINE, FakeEngine().snapshot())
    assert (sized.max_active_requests, sized.kv_blocks) == (64, ENVELOPE.kv_blocks)
    assert sized.cost == MACHINE.cost


def test_a_running_server_without_a_step_log_is_told_how_to_start(tmp_path):
    choice = ServerChoice(
        "http://127.0.0.1:9", tmp_path / "token", tmp_path / "none.csv", 9, "", tmp_path
    )
    with (
        pytest.raises(CalibrationError, match=r"HMAS_STEP_LOG=.*step_log_scheduler"),
        measured_server(choice, CaseProgress()),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["calibrate", "--url", "http://127.0.0.1:9", "--step-log", "none.csv"], "no step log at"),
        (["eval", "fidelity", "none.toml"], "none.toml: cannot be read"),
        (["eval", "fidelity", SUITE, "--profile", "nobody"], "no 'nobody' in evals/profiles"),
    ],
)
def test_commands_end_with_one_line_that_says_what_is_wrong(arguments, complaint):
    result = run_hmas(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"hmas {' '.join(arguments[: 1 + (arguments[0] == 'eval')])}: ")
    assert complaint in result.stderr


def test_sheet_and_plot_show_every_case(tmp_path, ran):
    run, steps = ran
    comparisons = [
        compare(case(arm), run, run, steps, steps, overhead_s=0.01)
        for arm in ("vllm-fcfs", "fixed-edf+rules")
    ]
    sheet = fidelity_sheet([comparison.result for comparison in comparisons])
    assert [row[1] for row in sheet.rows] == ["vllm-fcfs", "fixed-edf+rules"]
    assert "10.0 ms" in sheet.note
    fidelity_plot(comparisons, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
