"""`hmas run`: help that teaches, exit codes, and one line per decision."""

import json
import os
import signal
from pathlib import Path

import pytest

from graphs import commands
from graphs.commands import line_of
from hmas_agents.records import DecisionRecord, ToolCall
from serving.perception.attributes import signed_tenant
from tests.agents.model_server import completion, proposals, serving
from tests.command_line import run_hmas
from tests.fakes import FakeEngine

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    (tmp_path / "token").write_text("secret")
    fixed = ["--token-file", str(tmp_path / "token"), "--ledger", str(tmp_path / "l.sqlite")]
    (tmp_path / "hmas.toml").write_text(
        "control.short_tick_s = 0.05\nmodel.enabled = false\ntwin.enabled = false\n"
    )

    def run(engine: FakeEngine, *args: str):
        monkeypatch.setattr(commands, "connect", lambda url, token, look_s: engine)
        config = ["--config", str(tmp_path / "hmas.toml")]
        return run_hmas("run", *config, *fixed, *args)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_it_acts_until_the_duration_is_over_and_releases(invoke):
    engine = FakeEngine()
    result = invoke(engine, "--mode", "act", "--duration", "2")
    assert result.exit_code == 0, result.output
    assert "fcfs > edf:kappa=3 +slack +serial +triage" in result.output
    assert len(engine.applied) == 4
    assert (engine.owner, engine.policy) == ("", "fcfs")


def test_no_engine_is_exit_code_1(invoke):
    result = invoke(FakeEngine(down=True))
    assert result.exit_code == 1
    assert "fake engine is down" in result.output


def test_another_controller_is_exit_code_3_and_named(invoke):
    engine = FakeEngine(owner="first", lease_until_s=100.0)
    result = invoke(engine, "--mode", "act", "--no-wait")
    assert result.exit_code == 3
    assert "'first' owns this engine" in result.output


class Passing(FakeEngine):
    """Four seconds pass with each look."""

    def snapshot(self):
        self.now_s += 4.0
        return super().snapshot()


def test_it_stands_by_until_the_other_is_gone_and_says_so(invoke):
    result = invoke(Passing(owner="first", lease_until_s=9.0), "--mode", "act", "--duration", "1")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert said.count("controller 'first' owns this engine for another") == 1
    assert "the engine is free: acting from the start policy; nothing to recover" in said
    assert "fcfs > edf:kappa=3" in said


def test_the_agents_requests_are_signed_with_the_token_of_the_file(invoke, monkeypatch, tmp_path):
    monkeypatch.delenv("HMAS_TOKEN", raising=False)
    with serving(completion(proposals("edf"))) as model:
        (tmp_path / "hmas.toml").write_text(
            f'control.short_tick_s = 0.05\ntwin.enabled = false\nmodel.base_url = "{model.url}"\n'
            f'[agents.model]\nreplaces = "batching"\nbase_url = "{model.url}"\n'
        )
        result = invoke(Passing(), "--duration", "2")
    assert result.exit_code == 0, result.output
    assert "HMAS_TOKEN" not in os.environ, "later servers of this process would inherit it"
    monkeypatch.setenv("HMAS_TOKEN", "secret")
    formats = {asked["response_format"]["json_schema"]["name"] for asked in model.asked}
    assert formats == {"policy_proposals", "choice"}, "both agents asked"
    assert {signed_tenant(asked["vllm_xargs"], "own") for asked in model.asked} == {"hmas"}


@pytest.mark.parametrize("duration", ["-5", "nan", "inf", "soon"])
def test_a_duration_that_is_none_is_refused(invoke, duration):
    result = invoke(FakeEngine(), "--duration", duration)
    assert result.exit_code == 2
    assert result.stderr.startswith("hmas run: Invalid value for '--duration': ")


def test_help_teaches(invoke):
    result = invoke(FakeEngine(), "--help")
    assert result.exit_code == 0
    assert "hmas run --mode act" in result.output
    assert "another owns the engine (--no-wait)" in " ".join(result.output.split())


def test_a_line_says_what_and_why():
    call = ToolCall("set_shed_share", {"share": 0.1, "reason": "r"}, False, "owned by [x]")
    record = DecisionRecord(
        "short", 1.0, "act", "tick", {}, 1, 2, reason="preemptions", tool_calls=[call]
    )
    line = line_of(record)
    assert "shed 0.1 refused" in line
    assert "preemptions" in line
    assert r"owned by \[x]" in line


def test_langgraph_json_names_graphs_that_build(monkeypatch, tmp_path):
    from graphs import studio

    (tmp_path / "token").write_text("secret")
    (tmp_path / "c.toml").write_text(f'engine.token_file = "{tmp_path / "token"}"\n')
    monkeypatch.setenv("HMAS_CONFIG", str(tmp_path / "c.toml"))
    listed = json.loads((ROOT / "langgraph.json").read_text())["graphs"]
    assert sorted(listed) == ["long_horizon", "short_horizon"]
    for name, target in listed.items():
        path, _, attribute = target.partition(":")
        assert (ROOT / path).samefile(studio.__file__)
        nodes = getattr(studio, attribute)().get_graph().nodes
        assert "observe" in nodes
        assert {"tools"} & set(nodes) if name == "short_horizon" else "verify" in nodes
