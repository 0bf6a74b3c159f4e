"""Does a suite replay ServeGen's clients, by half and block, as its tenants?"""

import json
from pathlib import Path

import pytest

from evals.requests.offer import offer
from evals.requests.scenario import TraceFile, build_workload
from evals.requests.servegen_files import find_servegen
from evals.requests.trace import TraceError
from evals.suite.suite import load_suite
from evals.suite.toml_file import SuiteError
from evals.suite.traffic_spec import DrawSpec
from tests.command_line import run_hmas
from tests.evals.servegen_samples import write_model

TWO_HOURS = DrawSpec(hours=(0.0, 2.0))
SUITE = """\
name = "clients"
half = "test"
minutes = 24
tail_s = 60
loads = [0.8]
arms = ["vllm-fcfs"]

[[scenarios]]
name = "day"
trace = "servegen"

[scenarios.draw]
model = "small"
hours = [0, 2]
"""


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "small")


@pytest.fixture
def suite(tmp_path, monkeypatch):
    monkeypatch.setenv("HMAS_TRACES", str(tmp_path))
    path = tmp_path / "clients.toml"
    path.write_text(SUITE)
    return path


def test_a_suite_replays_clients_as_its_tenants(suite, model):
    assert find_servegen("small") == model
    done = run_hmas("eval", "run", suite, "--json")
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    assert result["half"] == "test"
    assert result["load_counted"] == pytest.approx(0.8, rel=0.05)
    assert result["trace"].startswith("small (servegen, sha256 ")
    loaded = load_suite(suite)
    workload = build_workload(loaded, loaded.scenarios[0], 0, 4096)
    assert {(one.tenant, one.slo_class) for one in offer(workload, 5.0).requests} == {
        ("client-3", "conversational"), ("client-7", "document"), ("client-12", "interactive"),
    }  # fmt: skip
    assert dict(workload.weights) == {"client-3": 2.0, "client-7": 2.0, "client-12": 4.0}
    terms = workload.settings(loaded.settings).contract.tenants
    assert {name: each.weight for name, each in terms.items()} == dict(workload.weights)


def test_halves_of_the_clients_time_and_blocks_are_other_requests(suite, model):
    """The first hour is one half, the second the other; 25 minutes fit twice into each."""
    hours = {}
    for half in ("development", "test"):
        seeds = (0, 1) if half == "development" else (0,)  # nobody sends in the fourth
        seeds_said = f"seeds = {len(seeds)}\n"
        suite.write_text(seeds_said + SUITE.replace('"test"', f'"{half}"'))
        loaded = load_suite(suite)
        built = [build_workload(loaded, loaded.scenarios[0], seed, 4096) for seed in seeds]
        hours[half] = [one.provenance.rpartition("hour ")[2] for one in built]
    assert hours == {"development": ["0.00", "0.42"], "test": ["1.00"]}
    suite.write_text("seeds = 2\n" + SUITE)
    done = run_hmas("eval", "run", suite)
    assert done.exit_code == 2
    assert "day: 2 seeds are asked for, and this half has 1 block of 1500 s" in done.stderr


def test_clients_in_place_of_a_suites_trace_bring_their_tenants(model):
    smoke = load_suite(Path("evals/suites/smoke.toml"))
    file = TraceFile(model, "servegen", TWO_HOURS)
    workload = build_workload(smoke, smoke.scenarios[0], 0, 4096, file)
    assert {one.tenant for one in offer(workload, 5.0).requests} <= {
        "client-3", "client-7", "client-12",
    }  # fmt: skip
    drift = load_suite(Path("evals/suites/drift.toml"))
    joins = next(one for one in drift.scenarios if any(each.tenant for each in one.changes))
    with pytest.raises(TraceError, match="changes: one is about a tenant of the suite"):
        build_workload(drift, joins, 0, 4096, file)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('trace = "servegen"', 'trace = "azure-conv"', "tenants: at least one is needed"),
        ("hours = [0, 2]", "hours = [2, 2]", "scenarios.0.draw.hours: must grow"),
        ("hours = [0, 2]", "hour = 2", "scenarios.0.draw.hour: unknown key"),
        ('half = "test"', 'half = "any"', "half: 'development' or 'test'"),
    ],
)
def test_a_scenario_that_does_not_fit_is_an_error(suite, old, new, says):
    suite.write_text(SUITE.replace(old, new))
    with pytest.raises(SuiteError) as error:
        load_suite(suite)
    assert says in str(error.value)


def test_a_model_that_is_not_here_is_an_error_that_says_what_to_do(suite):
    done = run_hmas("eval", "run", suite)
    assert done.exit_code == 2
    assert "no small on this machine: `hmas traces fetch servegen`" in done.stderr
