"""Do `hmas eval flood` and `hmas bench fleet` run what they say, and tell what came of it?"""

import json
from dataclasses import replace

import numpy as np
import pytest

from evals.checks.replicas import flood as flood_module
from evals.checks.replicas.flood import (
    CASES,
    FIGURES,
    REPLICAS,
    FloodOptions,
    capacity_rps,
    compared,
    draw_flood,
    run_floods,
)
from evals.checks.replicas.report import flood_sheets, scale_sheet
from evals.checks.replicas.scale import ScaleOptions, begun, plot, run_scale
from evals.machines.profile_file import load_profile
from evals.plan.traffic import Traffic
from evals.requests.columns import RequestColumns
from serving.contracts.settings import EngineSettings
from tests.command_line import run_hmas
from tests.evals.small_cases import MACHINE, workload

H100 = replace(load_profile("h100_llama_8b"), prefix_caching=False)


def told(*_):
    pass


@pytest.fixture(scope="module")
def floods():
    return run_floods(FloodOptions(seeds=3), told)


@pytest.mark.parametrize("case", CASES)
def test_a_flood_is_as_heavy_as_it_says_and_falls_on_one_replica(case):
    drawn = draw_flood(H100, case, 1)
    columns, rate_rps = drawn.traffic.columns, capacity_rps(H100)
    assert (np.diff(columns.arrival_s) >= 0).all()
    flooding = (columns.sender == 0) & (columns.arrival_s >= 30) & (columns.arrival_s < 90)
    usual = 0.25 if case == "beside" else 0.0
    assert flooding[drawn.sent_to == 0].sum() / 60 == pytest.approx((2 + usual) * rate_rps, rel=0.1)
    for k in range(REPLICAS):
        others = (columns.sender != 0) & (drawn.sent_to == k)
        assert others.sum() / 120 == pytest.approx(0.6 * rate_rps, rel=0.1)
        names = set(columns.sender[others].tolist())
        assert names == ({k + 1} if case == "beside" else {1, 2, 3})
    again = draw_flood(H100, case, 1)
    assert np.array_equal(again.traffic.columns.arrival_s, columns.arrival_s)


def test_shares_of_the_fleet_protect_those_beside_a_flood(floods):
    found = {
        (one["case"], one["figure"]): one for one in compared(floods) if one["policy"] == "fair"
    }
    assert found["beside", "beside_flood"]["difference"].low > 0.1
    assert found["beside", "over_mean"]["difference"].high < 0.0
    # Where the flooding tenant has nothing elsewhere, the fleet owes it more there.
    assert found["apart", "beside_flood"]["difference"].high < 0.0
    assert all(one["within_bound"] for one in floods)


def test_arms_see_the_same_requests_and_a_run_can_be_repeated(floods):
    by_seed: dict[tuple[str, int], set[int]] = {(one["case"], one["seed"]): set() for one in floods}
    for one in floods:
        by_seed[one["case"], one["seed"]].add(one["requests"])
    assert all(len(counts) == 1 for counts in by_seed.values())
    again = run_floods(FloodOptions(cases=("beside",), seeds=1), told)
    assert again == [one for one in floods if (one["case"], one["seed"]) == ("beside", 0)]


def test_the_flood_reads_as_a_table_per_case(floods):
    sheets = flood_sheets(compared(floods))
    assert [sheet.title for sheet in sheets] == ["Case beside, fair", "Case apart, fair"]
    assert all(len(sheet.rows) == len(FIGURES) + 3 for sheet in sheets)


def test_the_flood_command_says_what_it_found_and_what_is_wrong(monkeypatch):
    monkeypatch.setattr(flood_module, "ENDS_S", 40.0)
    done = run_hmas("eval", "flood", "--case", "beside", "--seeds", 1, "--json", "--check")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert {one["shares"] for one in document["results"]} == {"replica", "fleet"}
    assert document["compared"][0]["difference"]["n"] == 1
    assert "no 'aprt'; did you mean 'apart'" in run_hmas("eval", "flood", "--case", "aprt").output
    assert "--policy fare" in run_hmas("eval", "flood", "--policy", "fare").output


TRAFFIC = Traffic("test", RequestColumns.of(workload(150, 15.0)), MACHINE, EngineSettings())


def test_each_number_of_replicas_is_loaded_alike_and_the_controller_looks_at_each_tick():
    options = ScaleOptions((1, 4), seconds=5.0)
    one, four = run_scale(TRAFFIC, options, told)
    assert four["requests"] == 4 * one["requests"] == 4 * len(begun(TRAFFIC, 5.0).columns)
    for result in (one, four):
        assert result["ticks"] == 5
        assert result["attainment"] > 0.5
        parts = result["controller_ms"]
        assert min(parts[part] for part in ("merge", "shares", "messages")) > 0
    assert plot([one, four], 1.0).startswith("<?xml")
    assert [row[0] for row in scale_sheet([one, four], 1.0).rows] == ["1", "4"]


def test_replicas_that_stop_cost_attainment_and_nobody_is_lost():
    (whole,), (stopped,) = (
        run_scale(TRAFFIC, ScaleOptions((4,), seconds=8.0, away=away), told) for away in (0, 3)
    )
    assert stopped["requests"] == whole["requests"]
    assert stopped["attainment"] < whole["attainment"]


def test_the_fleet_command_writes_its_figures(tmp_path):
    done = run_hmas(
        "bench", "fleet", "--replicas", 2, "--suite", "evals/suites/smoke.toml", "--seconds", 5,
        "--out", tmp_path, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["results"][0]["replicas"] == 2
    assert json.loads((tmp_path / "fleet.json").read_text()) == document
    assert (tmp_path / "fleet.svg").exists()
    assert "one must go on" in run_hmas("bench", "fleet", "--replicas", 2, "--away", 2).output
