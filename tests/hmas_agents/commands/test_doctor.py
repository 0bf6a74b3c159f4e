"""`hmas doctor` finds what is wrong, says what to do, and fails only where it must."""

import importlib.metadata
import json
from pathlib import Path

import pytest

from hmas_agents.commands import checks
from hmas_agents.config import load_config
from serving.perception.attributes import signed_tenant


def engine_config(server, **changes):
    given = {"engine.url": server.url, "engine.token_file": server.token_file} | changes
    return load_config(None, given).engine


def model_config(server, **changes):
    return load_config(None, {"model.base_url": f"{server.url}/v1"} | changes).model


def results(found):
    return {check.name: check.result for check in found}


def test_a_sane_server_is_ok_throughout(server):
    assert results(checks.check_engine(engine_config(server))) == {
        "server": "ok",
        "hook": "ok",
        "clock": "ok",
    }
    assert results(checks.check_model(model_config(server), server.token_file)) == {"model": "ok"}


def test_no_server_is_a_warning(tmp_path):
    config = load_config(None, {"engine.url": "http://127.0.0.1:9"}).engine
    (check,) = checks.check_engine(config)
    assert (check.name, check.result) == ("server", "warn")
    assert "hmas serve" in check.todo


def test_a_server_without_the_hook_fails(server):
    server.routes["/hmas/snapshot"] = (404, {"error": {"message": "Not Found"}})
    assert results(checks.check_engine(engine_config(server)))["hook"] == "fail"


@pytest.mark.parametrize("body", [{}, [], {"ranks": [{"now_s": 1}]}])
def test_a_server_that_answers_something_else_fails(server, body):
    server.routes["/hmas/snapshot"] = (200, body)
    assert results(checks.check_engine(engine_config(server)))["hook"] == "fail"


def test_a_missing_token_fails(server):
    config = engine_config(server, **{"engine.token_file": "nowhere"})
    assert results(checks.check_engine(config))["hook"] == "fail"


@pytest.mark.parametrize(("skew_s", "result"), [(-1.0, "ok"), (30.0, "fail"), (-30.0, "fail")])
def test_the_clock(server, skew_s, result):
    server.clock_skew_s = skew_s
    assert results(checks.check_engine(engine_config(server)))["clock"] == result


def test_errors_in_the_hook_warn(server):
    server.policy_errors = 3
    assert results(checks.check_engine(engine_config(server)))["hook"] == "warn"


def test_each_replica_of_a_fleet_is_listed_and_one_that_is_away_warns(server, second):
    urls = f"{server.url},{second.url},http://127.0.0.1:9"
    found = checks.check_engine(engine_config(server, **{"engine.url": urls}))
    names = [url.removeprefix("http://") for url in urls.split(",")]
    assert [results(found)[name] for name in names] == ["ok", "ok", "warn"]


def test_each_rank_is_listed_and_one_that_differs_warns(server):
    server.rank_changes = [{}, {}]
    found = results(checks.check_engine(engine_config(server)))
    assert (found["rank 0"], found["rank 1"], "ranks" in found) == ("ok", "ok", False)
    server.rank_changes = [{}, {"epoch": 4, "policy": "slide"}]
    found = checks.check_engine(engine_config(server))
    assert results(found)["ranks"] == "warn"
    assert "policy slide, epoch 4" in next(c.found for c in found if c.name == "rank 1")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v1/models", (200, {"data": []})),
        ("/v1/models", (200, {"data": [3]})),
        ("/v1/models", (200, [])),
        ("/v1/chat/completions", (500, {})),
    ],
)
def test_a_model_that_does_not_answer_warns_because_rules_go_on(server, path, answer):
    server.routes[path] = answer
    (check,) = checks.check_model(model_config(server), server.token_file)
    assert check.result == "warn"
    assert "rules decide" in check.todo


def test_the_model_is_asked_as_the_agents_tenant(server, monkeypatch):
    checks.check_model(model_config(server), server.token_file)
    unnamed = model_config(server, **{"model.tenant": "", "model.name": "mine"})
    checks.check_model(unnamed, server.token_file)
    said = server.posted[0]["vllm_xargs"]
    assert (said["tenant"], said["slo_e2e_ms"]) == ("hmas", 20_000.0)
    monkeypatch.setenv("HMAS_TOKEN", "secret")
    assert signed_tenant(said, "own") == "hmas", "a server that believes no client believes this"
    assert "vllm_xargs" not in server.posted[1]
    assert [request["model"] for request in server.posted] == ["smollm2", "mine"]


def test_a_model_switched_off_is_fine(server):
    config = model_config(server, **{"model.enabled": False})
    assert checks.check_model(config, server.token_file)[0].result == "ok"
    assert not server.posted


def test_our_packages_come_from_the_repository():
    assert set(results(checks.check_origins()).values()) == {"ok"}


def test_a_namesake_elsewhere_or_a_missing_package_fails():
    found = checks.check_origins(["json", "no_such_package"], Path(__file__).parent)
    assert [check.result for check in found] == ["fail", "fail"]
    assert "another package is called json" in found[0].todo


def test_what_does_not_load_beside_torch_fails_and_what_is_absent_is_nothing(tmp_path, monkeypatch):
    (tmp_path / "broken_beside_torch.py").write_text('raise RuntimeError("no operator\\nmore")')
    monkeypatch.syspath_prepend(tmp_path)
    (check,) = checks.check_beside_torch(["json", "not_installed_at_all", "broken_beside_torch"])
    assert check.found == "does not load beside this torch: no operator"
    assert "pip uninstall broken_beside_torch" in check.todo


def test_a_vllm_that_the_hook_was_not_tested_with_fails(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.99.0")
    failed = [check for check in checks.check_versions() if check.result == "fail"]
    assert {check.name for check in failed} == {"vllm"}
    assert ">=0.26,<0.34" in failed[0].todo


@pytest.mark.parametrize("look", [checks.check_versions, checks.check_entry_points])
def test_what_is_missing_is_named_with_what_installs_it(look, monkeypatch):
    def absent(*_: object, **__: object):
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", absent)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: ())
    missing = [check for check in look() if check.result == "fail"]
    assert missing
    assert all("pip" in check.todo for check in missing)


def test_json_and_the_exit_code(hmas, server, monkeypatch, tmp_path):
    alone = tmp_path / "alone.toml"  # the model's default address may be somebody's server
    alone.write_text("model.enabled = false\n")
    config = ("--config", str(alone), "--url", server.url)
    argv = ("doctor", "--json", *config, "--token-file", server.token_file)
    fine = [checks.Check("plugin", "ok", "x")]
    monkeypatch.setattr("hmas_agents.commands.doctor.check_entry_points", lambda: fine)
    code, out, _ = hmas(*argv)
    assert code == 0
    assert {"name": "plugin", "result": "ok", "found": "x", "todo": ""} in json.loads(out)
    broken = [checks.Check("plugin", "fail", "not registered", "install it")]
    monkeypatch.setattr("hmas_agents.commands.doctor.check_entry_points", lambda: broken)
    code, out, _ = hmas("doctor", *config)
    assert code == 1
    assert "fail  plugin: not registered\n      -> install it" in out
