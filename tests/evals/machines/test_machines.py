"""Are profiles made from measured kernels as they should be, and are the shipped ones plausible?"""

import json
import re
import sys
from dataclasses import astuple, replace
from itertools import pairwise
from pathlib import Path

import pytest

from evals.machines.fit import fit_relative, residuals
from evals.machines.kernels import designed_steps
from evals.machines.profile_file import PROFILES, load_profile, machine_of, profile_text
from evals.machines.silicon import HOST_S, STEPS, Wanted, step_times_ms
from evals.machines.steps import steps_of
from evals.requests.scenario import build_workload
from evals.sim.suite_run import RunOptions, cases_of
from evals.suite.arms import ControllerOptions
from evals.suite.suite import load_suite
from evals.suite.toml_file import SuiteError
from serving.contracts import CostCoefficients
from serving.perception.cost_model import StepShape
from tests.command_line import run_hmas

H200 = load_profile("h200_llama_8b")
COST = CostCoefficients(5e-3, 20e-6, 15e-6, 3e-8, 8e-10)
SHIPPED = (
    "b200_llama_8b", "h200_llama_8b", "h100_llama_8b", "a100_llama_8b", "l40s_llama_8b",
    "h200x2_qwen3_32b", "h100x4_llama_70b",
)  # fmt: skip
# What the kernels of STEPS take, in ms, asked one by one when the data were first looked at.
KERNELS_MS = {
    "b200_llama_8b": (3.5, 6.2, 9.1, 22.3, 97.5, 25.9),
    "h200_llama_8b": (4.9, 9.9, 15.2, 43.4, 199, 49.1),
    "h100_llama_8b": (6.2, 12.7, 19.3, 43.5, 200, 51.6),
    "a100_llama_8b": (11.9, 24.5, 43.3, 125, 557, 143),
}
LLAMA = "meta-llama/Meta-Llama-3.1-8B"


def timed(steps, cost=COST):
    rows = []
    for step in steps:
        shape = (step.prefill_tokens, step.decodes, step.decode_context, step.prefill_square)
        rows.append((0.0, StepShape(*shape).seconds(cost), *shape))
    return steps_of(rows)


def test_the_designed_steps_give_known_coefficients_back():
    steps = timed(designed_steps(500, H200, 3))
    fitted = fit_relative(steps)
    assert astuple(fitted) == pytest.approx(astuple(COST), rel=1e-6)
    assert residuals(steps, fitted) == pytest.approx([0.0] * 41, abs=1e-4)


def test_the_fit_weighs_relative_errors_and_is_never_negative():
    steps = timed(designed_steps(500, H200, 3))
    odd = steps.seconds.copy()
    odd[::2] *= 1.1  # as many a tenth too long as right
    fitted = fit_relative(replace(steps, seconds=odd))
    low, *_, high = residuals(replace(steps, seconds=odd), fitted)
    assert -0.06 < low < -0.03
    assert 0.03 < high < 0.07
    less = timed(designed_steps(500, H200, 3), replace(COST, per_decode_s=-1e-6))
    assert fit_relative(less).per_decode_s == 0.0


def test_designed_steps_are_those_that_the_machine_could_run_and_the_seed_decides():
    small = replace(H200, max_active_requests=64, token_budget=512, kv_blocks=1000)
    steps = designed_steps(600, small, 1)
    for step in steps:
        assert step.prefill_tokens + step.decodes <= 512 + 64
        assert step.decodes <= 64
        assert step.decode_context <= 16_000
        assert step.prefill_tokens + step.before_tokens <= 16_000 + 512
        assert bool(step.prefills) == bool(step.prefill_tokens)
    kinds = {(step.prefills > 0, step.decodes > 0) for step in steps}
    assert kinds == {(True, False), (False, True), (True, True)}
    assert any(step.before_tokens for step in steps)
    assert steps == designed_steps(600, small, 1) != designed_steps(600, small, 2)


def test_a_profile_reads_back_as_it_was_written(tmp_path):
    path = tmp_path / "mine.toml"
    made = replace(H200, name="mine", provenance='from "kernels"')
    path.write_text(profile_text(made, ["a comment"]))
    assert load_profile(str(path)) == made
    assert path.read_text().startswith("# a comment\n")


def test_a_profile_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(SuiteError, match=r"no 'h300' in evals/profiles; known: .*h200_llama_8b"):
        load_profile("h300")
    with pytest.raises(SuiteError, match=r"none\.toml: cannot be read"):
        load_profile(str(tmp_path / "none.toml"))


def test_a_suite_may_have_few_kv_blocks_and_another_machine():
    suite = load_suite(Path("evals/suites/tight.toml"))
    machine, other = machine_of(suite), machine_of(suite, "a100_llama_8b")
    assert (machine.kv_blocks, other.kv_blocks) == (6000, 6000)
    assert machine.cost == H200.cost
    assert machine.provenance == f"{H200.provenance}; 6000 KV blocks by the suite"
    assert other.cost == load_profile("a100_llama_8b").cost
    plain = suite.model_copy(update={"kv_blocks": None})
    assert machine_of(plain) == H200


def test_every_arm_of_a_seed_has_the_same_noise():
    suite = load_suite(Path("evals/suites/smoke.toml"))
    noise = {}
    for seed in (1, 2):
        workload = build_workload(suite, suite.scenarios[0], seed, 16_384)
        options = RunOptions(1, ControllerOptions())
        cases = cases_of(suite, workload, H200, options, capacity_rps=1.0)
        assert len(cases) == len(suite.arms) * len(suite.loads)
        (noise[seed],) = {case.profile.noise_seed for case in cases}
    assert noise == {1: 1, 2: 2}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_says_what_made_it_and_how_good_it_is(name):
    profile, text = load_profile(name), (PROFILES / f"{name}.toml").read_text()
    for fact in ("kernels measured on", "aiconfigurator-core 0.12.0", "0.2 ms a step", "p90"):
        assert fact in profile.provenance
    assert wanted(name).name == name
    assert "SGLang 0.5." in text
    assert len(profile.residuals) == 41
    assert list(profile.residuals) == sorted(profile.residuals)
    assert -0.3 < profile.residuals[0] < -0.1
    assert abs(profile.residuals[20]) < 0.05
    assert 0.1 < profile.residuals[-1] < 0.3
    ours, theirs = astuple(profile.cost), astuple(profile.other_costs["sglang"])
    assert theirs == pytest.approx(ours, rel=0.5)
    assert theirs != ours


@pytest.mark.parametrize("name", KERNELS_MS)
def test_steps_lie_within_the_stated_residuals_of_their_kernels(name):
    profile = load_profile(name)
    low, high = profile.residuals[0], profile.residuals[-1]
    for step, fitted_ms, kernels_ms in zip(
        STEPS.values(), step_times_ms(profile).values(), KERNELS_MS[name], strict=True
    ):
        if step.prefill_tokens <= profile.token_budget:
            took_ms = kernels_ms + HOST_S * 1000
            assert low - 0.01 <= took_ms / fitted_ms - 1 <= high + 0.01


def test_newer_gpus_are_not_slower_and_larger_models_are():
    machines = [step_times_ms(load_profile(name)) for name in SHIPPED[:5]]
    for newer, older in pairwise(machines):
        for step in STEPS:
            assert newer[step] <= 1.02 * older[step]
        assert newer["128 decodes"] < older["128 decodes"]
    small, large = machines[2], step_times_ms(load_profile("h100x4_llama_70b"))
    assert all(large[step] > small[step] for step in STEPS)
    held = [load_profile(name).kv_blocks for name in SHIPPED[:5]]
    assert held[0] > held[1] > held[2]
    assert held[3] > held[4]


def test_without_the_extra_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiconfigurator_core", None)
    done = run_hmas("profile", "silicon", "--gpu", "h200_sxm", "--model", LLAMA)
    assert done.exit_code == 2
    assert "pip install aiconfigurator-core==0.12.0" in done.stderr


def test_the_list_has_every_profile_with_its_step_times(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = run_hmas("profile", "list")
    listed = json.loads(run_hmas("profile", "list", "--json").stdout)
    assert [each["name"] for each in listed] == sorted(p.stem for p in PROFILES.glob("*.toml"))
    for each in listed:
        assert each["name"] in shown.stdout
        assert list(each["step_ms"]) == list(STEPS)
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())


def wanted(name):
    """What the first line of a shipped profile says it was made from."""
    first = (PROFILES / f"{name}.toml").read_text().splitlines()[0]
    found = re.fullmatch(
        r"# Made by `hmas profile silicon --gpu (\S+) --model (\S+) --tp (\d+)`\.", first
    )
    assert found
    return Wanted(found[1], found[2], int(found[3]))


# -- with the extra ------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_is_what_its_command_makes(name):
    pytest.importorskip("aiconfigurator_core")
    asked = wanted(name)
    words = ("--gpu", asked.gpu, "--model", asked.model, "--tp", asked.tp)
    done = run_hmas("profile", "silicon", *words, "--check")
    assert (done.exit_code, done.stderr.startswith("the same: ")) == (0, True), done.stderr


def test_a_profile_that_differs_fails_the_check():
    pytest.importorskip("aiconfigurator_core")
    done = run_hmas(
        "profile", "silicon", "--gpu", "l40s", "--model", LLAMA, "--host-ms", 3, "--check"
    )
    assert done.exit_code == 1
    assert "lines differ" in done.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--gpu", "h900", "--model", LLAMA), r"--gpu h900: not known; .*h200_sxm"),
        (("--gpu", "h200_sxm", "--model", "meta-llama/Llama-3.1-8B"), f"did you mean '{LLAMA}'"),
        (("--gpu", "h200_sxm", "--model", LLAMA, "--vllm", "0.1"), r"not measured.* 0\.24\.0"),
        (("--gpu", "h200_sxm", "--model", LLAMA, "--tp", 3), "3 x h200_sxm: .*divisible"),
        (("--gpu", "l40s", "--model", "Qwen/Qwen3-32B"), "does not fit on 1 x l40s.* --tp"),
    ],
)
def test_what_was_not_measured_is_refused_with_what_was(words, complaint, tmp_path):
    pytest.importorskip("aiconfigurator_core")
    done = run_hmas("profile", "silicon", *words, "--out", tmp_path)
    assert done.exit_code == 2
    assert re.search(complaint, done.stderr)
    assert list(tmp_path.iterdir()) == []
