"""Are suites and profiles read strictly, and are errors named with file, line and key?"""

from pathlib import Path

import pytest

from evals.machines.profile_file import PROFILES, load_profile
from evals.suite.arms import parse_arm
from evals.suite.suite import load_suite
from evals.suite.toml_file import SuiteError
from hmas_agents.config import ControlConfig
from serving.contracts.rules import RULES
from serving.policies import POLICIES

SUITES = sorted((PROFILES.parent / "suites").glob("*.toml"))
SMALL = """\
name = "small"
loads = [0.8]
arms = ["vllm-fcfs"]

[settings]
slo_scale = 2.0

[[scenarios]]
name = "one"
trace = "azure-conv"
requests = 10

[[scenarios.tenants]]
name = "a"
slo_class = "interactive"

[[scenarios]]
name = "two"
trace = "azure-code"
requests = 10

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
    assert load_profile(suite.profile).name == suite.profile


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_profile_says_where_its_figures_come_from(path):
    profile = load_profile(path.stem)
    assert profile.name == path.stem
    assert profile.provenance


def test_smoke_compares_stock_every_policy_that_may_be_chosen_and_hmas():
    suite = load_suite(PROFILES.parent / "suites" / "smoke.toml")
    fixed = {f"fixed-{policy}" for policy in ControlConfig().allow_policies}
    assert set(suite.arms) == {"vllm-fcfs", "hmas"} | fixed
    assert suite.loads == (0.8, 1.5)
    assert suite.scenarios[0].requests >= 3000
    assert len({tenant.slo_class for tenant in suite.scenarios[0].tenants}) == 3


def test_a_good_suite_is_read(tmp_path):
    suite = load(tmp_path, SMALL)
    slo = suite.settings.slo_of("interactive")
    assert slo is not None
    assert slo.ttft_ms == 1000
    assert suite.scenarios[1].tenants[1].weight == 2


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("loads = [0.8]", "loads = [-1]", 2, "loads.0: "),
        ("loads = [0.8]", "load = [0.8]", 2, "load: unknown key; did you mean 'loads'?"),
        ("loads = [0.8]", "loads = [0.8, 0.8]", 2, "loads: named twice"),
        ('arms = ["vllm-fcfs"]', 'arms = ["fixed-magic"]', 3, "unknown arm 'fixed-magic'; known: "),
        ("slo_scale = 2.0", "slo_scale = 0", 6, "settings.slo_scale: "),
        ("slo_scale = 2.0", "slo_scael = 2.0", 6, "settings.slo_scael: "),
        ("weight = 2", "weight = -2", 29, "scenarios.1.tenants.1.weight: "),
        ('name = "b"', 'name = "a"', 22, "scenarios.1.tenants: names must differ"),
        ('"azure-code"', '"azure-cod"', 19, "scenarios.1.trace: "),
        ('"document"', '"documents"', 28, "tenants.1.slo_class: unknown class 'documents'"),
        ('name = "two"', 'name = "one"', 8, "scenarios: named twice"),
        ("requests = 10\n\n[[scenarios.tenants]]", "[[scenarios.tenants]]", 8, "requests: "),
        ("loads = [0.8]", "loads = [0.8", 3, "not TOML"),
        ('"azure-code"', '"synthetic"', 17, "`traffic` goes with"),
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
seeds = [4, 5]
loads = [1]
arms = ["vllm-fcfs"]

[[tenants]]
name = "a"
slo_class = "interactive"

[[scenarios]]
name = "one"
trace = "azure-conv"
requests = 10
slo_scale = 0.5

[scenarios.mix]
trace = "azure-code"
shape = "step"
at = [0.5]

[[scenarios]]
name = "two"
trace = "azure-code"
requests = 10

[scenarios.burst]
factor = 3
for_s = 10
every_s = 60

[[scenarios.tenants]]
name = "b"
slo_class = "document"
"""


def test_scenarios_without_tenants_have_the_suites_and_may_scale_slos(tmp_path):
    suite = load(tmp_path, DRIFTING)
    one, two = suite.scenarios
    assert ([t.name for t in one.tenants], [t.name for t in two.tenants]) == (["a"], ["b"])
    assert (suite.settings_of(one).slo_scale, suite.settings_of(two).slo_scale) == (0.5, 1.0)
    assert suite.every_seed == (4, 5)
    assert load(tmp_path, DRIFTING.replace("seeds = [4, 5]", "seed = 7")).every_seed == (7,)


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("at = [0.5]", "at = [1.5]", 19, "scenarios.0.mix.at.0: "),
        ("at = [0.5]", "cycle = 2", 19, "scenarios.0.mix.cycle: unknown key; did you mean"),
        ('shape = "step"', 'shape = "steep"', 18, "scenarios.0.mix.shape: "),
        ("factor = 3", "factor = 1", 27, "scenarios.1.burst.factor: "),
        ("seeds = [4, 5]", "seeds = [4, 4]", 2, "seeds: named twice"),
        ('"interactive"', '"intractive"', 8, "tenants.0.slo_class: unknown class"),
        ("slo_scale = 0.5", "slo_scale = 0", 14, "scenarios.0.slo_scale: "),
    ],
)
def test_an_error_in_what_drifts_names_file_line_and_key(tmp_path, old, new, line, says):
    assert old in DRIFTING
    with pytest.raises(SuiteError) as error:
        load(tmp_path, DRIFTING.replace(old, new))
    assert str(error.value).startswith(f"{tmp_path / 'suite.toml'}:{line}: ")
    assert says in str(error.value)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_asks_a_question_and_says_how_it_is_run(path):
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("?" in line for line in comment)
    live = path.stem == "live"  # its seeds are rounds of an hour of wall time
    assert load_suite(path).seeds == () or len(load_suite(path).seeds) >= (3 if live else 5)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(SuiteError, match=r"none\.toml: cannot be read"):
        load_suite(tmp_path / "none.toml")
    with pytest.raises(SuiteError, match=r"no 'nothing' in evals/profiles; known: .*h200_llama_8b"):
        load_profile("nothing")


def test_the_ablation_has_stock_every_policy_without_and_with_rules_and_each_rule_alone():
    suite = load_suite(PROFILES.parent / "suites" / "ablation.toml")
    arms = [parse_arm(arm) for arm in suite.arms]
    assert arms[0].kind == "stock"
    assert [arm.policy for arm in arms if not arm.rules][1:] == list(POLICIES)
    assert [arm.policy for arm in arms if arm.all_rules] == list(POLICIES)
    alone = {(arm.policy, *arm.rules) for arm in arms if len(arm.rules) == 1}
    assert alone == {(policy, rule) for policy in ("fcfs", "edf", "slide") for rule in RULES}
    assert suite.loads == (0.6, 0.8, 1.0, 1.2, 1.5)
    assert {scenario.trace for scenario in suite.scenarios} == {"azure-conv", "azure-code"}


def test_the_flooder_sends_ten_times_its_share_and_the_others_less_than_theirs():
    suite = load_suite(PROFILES.parent / "suites" / "flood.toml")
    tenants = suite.scenarios[0].tenants
    offered = {tenant.name: suite.loads[0] * tenant.weight for tenant in tenants}
    all_weights = sum(tenant.weight for tenant in tenants)
    times_share = {name: rate / all_weights * len(tenants) for name, rate in offered.items()}
    assert times_share.pop("flooder") == pytest.approx(10)
    assert len({tenant.slo_class for tenant in tenants}) == 1
    assert all(0 < times < 1 for times in times_share.values())
