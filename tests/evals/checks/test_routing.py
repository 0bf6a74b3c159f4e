"""Does `hmas eval routing` give every router the same requests, and tell what came of it?"""

import numpy as np
import pytest

from evals.checks.replicas import routing as routing_module
from evals.checks.replicas.report import routing_sheets
from evals.checks.replicas.routing import (
    OURS,
    STOCK,
    TRIED,
    TUNED,
    RoutingOptions,
    compared,
    plot,
    run_routers,
)
from evals.progress import CaseProgress
from hmas_agents.config import Config
from tests.command_line import run_hmas
from tests.evals.in_process import InProcess

SUITE = """
name = "talks"
description = "Sessions whose prompts grow."
question = "Which router?"
half = "test"
seeds = 2
minutes = 0.5
warmup_s = 5.0
tail_s = 10.0
profiles = ["h200_llama_8b"]
loads = [0.9]
arms = ["start"]

[[scenarios]]
name = "agents"
trace = "synthetic"

[[scenarios.tenants]]
name = "hooli-agent"
slo_class = "conversational"

[scenarios.tenants.sessions]
rate_rps = 0.5
turns = 12
think_s = { p50 = 0.5, p90 = 2.0, most = 10 }
system_tokens = 2048
prompt = { p50 = 300, p90 = 1500, most = 6000 }
output = { p50 = 20, p90 = 50, most = 200 }
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    file = tmp_path_factory.mktemp("suite") / "talks.toml"
    file.write_text(SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routing_module, "Workers", InProcess)
        options = RoutingOptions(file, Config().control.start_setting, 3, (0.9,), seeds=2)
        return run_routers(options, CaseProgress())


def test_each_router_serves_the_same_requests_with_and_without_the_hook(results):
    routers = [one["router"] for one in results if one["seed"] == 0]
    others = ["least-loaded", "power-of-two", "prefix", TUNED]
    assert routers == [*(STOCK + each for each in others), *others, OURS]
    for seed in (0, 1):
        assert len({one["requests"] for one in results if one["seed"] == seed}) == 1
    assert all((one["imbalance"] in TRIED) == one["router"].endswith(TUNED) for one in results)


def test_ours_finds_cached_prompts_and_those_that_only_count_requests_do_not(results):
    def mean(router, figure):
        return np.mean([one[figure] for one in results if one["router"] == router])

    assert mean(OURS, "cached_share") > mean("power-of-two", "cached_share") + 0.1
    assert mean(OURS, "attainment") > mean("power-of-two", "attainment")


def test_the_comparison_is_paired_and_its_table_names_the_tuned_imbalance(results):
    found = compared(results)
    ours = next(one for one in found if one["router"] == OURS)
    base = next(one for one in found if one["router"] == "prefix")
    assert ours["ours_more"].mean == 0.0
    assert ours["p"] is None
    assert base["ours_more"].mean == pytest.approx(
        ours["attainment"].mean - base["attainment"].mean
    )
    (sheet,) = routing_sheets(found)
    assert sheet.title == "agents, 0.9x"
    assert [row[0] for row in sheet.rows][-1] == OURS
    assert any(row[0].startswith(f"{TUNED} (") for row in sheet.rows)
    assert "agents: all SLOs met" in plot(found)


def test_a_setting_that_there_is_not_is_named():
    said = run_hmas("eval", "routing", "--policy", "edf+hope").output
    assert "--policy edf+hope" in said
