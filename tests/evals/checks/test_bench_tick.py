"""Does `hmas bench tick` time quiet and acting ticks of the real loop, at each rate?"""

import json

from typer.testing import CliRunner

from evals.checks.bench.commands import app
from evals.checks.bench.controller_bench import TARGET_MS, time_ticks


def test_quiet_and_acting_ticks_are_timed_at_every_rate():
    done = CliRunner().invoke(
        app, ["tick", "--rate", "1", "--rate", "5", "--waiting", "50", "--ticks", "120", "--json"]
    )
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)["results"]
    assert [(r["rate_rps"], r["waiting"]) for r in results] == [(1.0, 50), (5.0, 50)]
    for result in results:
        assert result["quiet"]["ticks"] + result["acting"]["ticks"] == result["all"]["ticks"] == 120
        assert result["acting"]["ticks"] > 0, "agents act in troubled times"
        assert result["quiet"]["ticks"] > result["acting"]["ticks"]
        assert 0 < result["all"]["cpu_p50_ms"] <= result["all"]["cpu_p99_ms"]


def test_the_check_fails_where_a_tick_costs_too_much(monkeypatch):
    result = time_ticks(1.0, 5, 100, seed=0)
    for cpu_ms, code in ((TARGET_MS, 1), (TARGET_MS - 1, 0)):
        slow = {**result, "all": {**result["all"], "cpu_p99_ms": cpu_ms}}
        monkeypatch.setattr("evals.checks.bench.controller_bench.time_ticks", lambda *_, **__: slow)  # noqa: B023
        done = CliRunner().invoke(app, ["tick", "--check"])
        assert done.exit_code == code
        assert "10 req/s" not in done.stdout
        assert done.stdout.count("1 req/s") == 2
