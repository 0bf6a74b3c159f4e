"""Do a calibration and a fidelity run go through on a real vLLM with a step log?"""

import json
import re
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evals.suite.toml_file import read_toml
from serving.engines.profile import EngineProfile

pytestmark = pytest.mark.real_vllm

SUITE = Path("evals/checks/fidelity/cpu_suite.toml")


def test_a_short_calibration_and_replay_give_a_profile_and_its_errors(tmp_path):
    import typer

    from evals.checks.fidelity.commands import calibrate, fidelity

    app = typer.Typer()
    app.command()(calibrate)
    app.command()(fidelity)
    # The suite as it is, but what arrives behind the counted requests need not go on for a minute.
    suite, changed = re.subn(r"(?m)^tail_s = .*", "tail_s = 4.0", SUITE.read_text())
    suite, also = re.subn(r"(?m)^minutes = .*", "minutes = 0.2", suite)
    assert (changed, also) == (1, 1)
    short = tmp_path / "short_tail.toml"
    short.write_text(suite)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    result = CliRunner().invoke(
        app,
        [
            "fidelity", str(short), "--calibrate", "--seconds", "80",
            "--port", str(port), "--out", str(tmp_path), "--json",
        ],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    profile = read_toml(tmp_path / "calibrated.toml", EngineProfile)
    assert profile.cost.per_prefill_token_s > 0
    assert profile.max_active_requests == 32
    calibrated = json.loads((tmp_path / "calibration.json").read_text())
    assert calibrated["fit"]["samples"] > 100
    assert 0 < calibrated["overhead_s"] < 5
    assert calibrated["facts"]["parts"] == 5  # before, between and after four replays
    results = json.loads((tmp_path / "fidelity.json").read_text())["results"]
    assert len(results) == 4
    for case in results:
        # Steps and requests were matched up: coarse, for how near is no test's business.
        assert case["requests"] > 0
        assert 0.3 < 1 + case["step_model"]["total_error"] < 3
        assert case["live"]["steps"] > 0
    for name in ("calibration.png", "fidelity.png", "fidelity.md"):
        assert (tmp_path / name).stat().st_size > 0
