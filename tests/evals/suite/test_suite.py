"""Are suites and profiles read strictly, and are errors named with file, line and key?"""

from pathlib import Path

import pytest

from evals.machines.profile_file import PROFILES, load_profile
from evals.suite.suite import load_suite
from evals.suite.toml_file import SuiteError
from hmas_agents.config import ControlConfig

SUITES = sorted((PROFILES.parent / "suites").glob("*.toml"))
SMALL = """\
name = "small"
half = "test"
loads = [0.8]
minutes = 5
arms = ["vllm-fcfs"]

[settings]
slo_scale = 2.0

[[scenarios]]
name = "one"
trace = "azure-conv"

[[scenarios.tenants]]
name = "a"
slo_class = "interactive"

[[scenarios]]
name = "two"
trace = "azure-code"

[[scenarios.tenants]]
name = "a"
slo_class = "interactive"

[[scenarios.tenants]]
name = "b"
slo_class = "document"
weight = 2
"""


def load(tmp_path: Path, text: str):
    path = tmp_path / "suite.toml"
    path.write_text(text)
    return load_suite(path)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_in_the_repository_is_valid_and_has_a_profile(path):
    suite = load_suite(path)
    assert suite.name == path.stem
    assert [load_profile(name).name for name in suite.profiles] == list(suite.profiles)


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_profile_says_where_its_figures_come_from(path):
    profile = load_profile(path.stem)
    assert profile.name == path.stem
    assert profile.provenance


def test_smoke_needs_no_trace_and_has_stock_the_start_setting_and_hmas():
    suite = load_suite(PROFILES.parent / "suites" / "smoke.toml")
    start = "+".join((ControlConfig().start_policy, *ControlConfig().start_rules))
    assert {"vllm-fcfs", f"fixed-{start}", "hmas"} <= set(suite.arms)
    assert {scenario.trace for scenario in suite.scenarios} == {"synthetic"}
    assert len({tenant.slo_class for tenant in suite.scenarios[0].tenants}) == 3
    assert min(suite.loads) < 1 < max(suite.loads)


def test_a_good_suite_is_read(tmp_path):
    suite = load(tmp_path, SMALL)
    slo = suite.settings.slo_of("interactive")
    assert slo is not None
    assert slo.ttft_ms == 1000
    assert suite.scenarios[1].tenants[1].weight == 2


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("loads = [0.8]", "loads = [-1]", 3, "loads.0: "),
        ("loads = [0.8]", "load = [0.8]", 3, "load: unknown key; did you mean 'loads'?"),
        ("loads = [0.8]", "loads = [0.8, 0.8]", 3, "loads: named twice"),
        ('half = "test"', 'half = "both"', 2, "half: "),
        ("minutes = 5", "minutes = 0", 4, "minutes: "),
        ("minutes = 5", "minutes = 5\nseeds = 0", 5, "seeds"),
        ('arms = ["vllm-fcfs"]', 'arms = ["fixed-magic"]', 5, "unknown arm 'fixed-magic'; known: "),
        ("slo_scale = 2.0", "slo_scale = 0", 8, "settings.slo_scale: "),
        ("slo_scale = 2.0", "slo_scael = 2.0", 8, "settings.slo_scael: "),
        ("weight = 2", "weight = -2", 29, "scenarios.1.tenants.1.weight: "),
        ('name = "b"', 'name = "a"', 22, "scenarios.1.tenants: names must differ"),
        ('"azure-code"', '"azure-cod"', 20, "scenarios.1.trace: "),
        ('"document"', '"documents"', 28, "tenants.1.slo_class: unknown class 'documents'"),
        ('name = "two"', 'name = "one"', 10, "scenarios: named twice"),
        ("loads = [0.8]", "loads = [0.8", 4, "not TOML"),
        ('"azure-code"', '"synthetic"', 18, "wants `traffic` or `sessions`"),
    ],
)
def test_an_error_names_file_line_and_key(tmp_path, old, new, line, says):
    assert old in SMALL
    with pytest.raises(SuiteError) as error:
        load(tmp_path, SMALL.replace(old, new))
    assert str(error.value).startswith(f"{tmp_path / 'suite.toml'}:{line}: ")
    assert says in str(error.value)


DRIFTING = """\
name = "drifting"
half = "any"
seeds = [4, 5]
loads = [1]
minutes = 5
arms = ["vllm-fcfs"]

[[tenants]]
name = "a"
slo_class = "interactive"
traffic = { rate_rps = 1, prompt = { p50 = 9, p90 = 99 }, output = { p50 = 9, p90 = 99 } }

[[scenarios]]
name = "one"
trace = "synthetic"
slo_scale = 0.5
minutes = 30

[[scenarios.changes]]
factor = 3
at = 0.5
until = 0.8
tenant = "a"

[[scenarios]]
name = "two"
trace = "azure-code"

[[scenarios.tenants]]
name = "b"
slo_class = "document"
"""


def test_scenarios_without_tenants_have_the_suites_and_may_be_longer(tmp_path):
    suite = load(tmp_path, DRIFTING)
    one, two = suite.scenarios
    assert ([t.name for t in one.tenants], [t.name for t in two.tenants]) == (["a"], ["b"])
    assert [suite.span(each).counted_s for each in (one, two)] == [1800, 300]
    short = suite.with_minutes(1)
    assert [short.span(each).counted_s for each in short.scenarios] == [60, 60]
    assert suite.every_seed == (4, 5)
    assert load(tmp_path, DRIFTING.replace("seeds = [4, 5]", "seeds = 3")).every_seed == (0, 1, 2)


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("at = 0.5", "at = 1.5", 21, "scenarios.0.changes.0.at: "),
        ("at = 0.5", "cycle = 2", 21, "scenarios.0.changes.0.cycle: unknown key"),
        ("until = 0.8", "until = 0.4", 19, "until must be above at + over"),
        ('tenant = "a"', 'tenant = "b"', 13, "changes: no tenant 'b' in this scenario"),
        ("factor = 3", "factor = -1", 20, "scenarios.0.changes.0.factor: "),
        ("p90 = 99 }, output", "p90 = 9 }, output", 11, "p90 must be above p50"),
        ("seeds = [4, 5]", "seeds = [4, 4]", 3, "seeds: named twice"),
        ('"interactive"', '"intractive"', 10, "tenants.0.slo_class: unknown class"),
        ("slo_scale = 0.5", "slo_scale = 0", 16, "scenarios.0.slo_scale: "),
    ],
)
def test_an_error_in_what_changes_names_file_line_and_key(tmp_path, old, new, line, says):
    assert old in DRIFTING
    with pytest.raises(SuiteError) as error:
        load(tmp_path, DRIFTING.replace(old, new))
    assert says in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'suite.toml'}:{line}: ")


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_asks_a_question_and_says_how_it_is_run(path):
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("?" in line for line in comment)
    rounds = 3 if path.stem == "live" else 20  # of an hour of wall time
    assert len(load_suite(path).every_seed) in (1, rounds)


SAID = """

[[scenarios.words]]
at = 0.5
now = "13:59"
texts = ["a first", "protect a"]
means = [{ kind = "weight", tenant = "a", factor = 3 }]
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"a", factor', '"x", factor', "means: change 1: no tenant 'x'"),
        ("factor = 3 }]", "factor = 300 }]", "factor is 0.01 to 100, not 300"),
        ('"weight"', '"shed", slo_class = "batch"', "means"),
        ("at = 0.5", "at = 0.5\nsince = 0.6", "since must not be after at"),
        ('"13:59"', '"1:59 pm"', "now"),
        ('["a first", "protect a"]', '["a first"]', "texts"),
        ("means = [", 'wanted = [{ kind = "shed" }]\nmeans = [', "goodput is weighed by weights"),
    ],
)
def test_words_mean_what_the_contract_allows(tmp_path, old, new, says):
    text = "settings.contract.tenants.a = {}\n" + DRIFTING.replace('[[scenarios]]\nname = "two"',
        f'{SAID}\n[[scenarios]]\nname = "two"')  # fmt: skip
    (words,) = load(tmp_path, text).scenarios[0].words
    assert words.means == words.weights
    with pytest.raises(SuiteError) as error:
        load(tmp_path, text.replace(old, new))
    assert says in str(error.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(SuiteError, match=r"none\.toml: cannot be read"):
        load_suite(tmp_path / "none.toml")
    with pytest.raises(SuiteError, match=r"no 'nothing' in evals/profiles; known: .*h200_llama_8b"):
        load_profile("nothing")
