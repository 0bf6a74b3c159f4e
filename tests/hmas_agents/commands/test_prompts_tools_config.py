"""`hmas prompts`, `hmas tools` and `hmas config` print what is there, and check it."""

import json
import shutil
import tomllib

import pytest

from hmas_agents.commands import prompts
from hmas_agents.config import Config, load_config
from prompts import loader
from tools import describe_tools


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A copy of the prompts that a test may break."""
    copy = tmp_path / "prompts"
    shutil.copytree(loader.ROOT, copy, ignore=shutil.ignore_patterns("*.py", "__pycache__"))

    def bound(function):
        return lambda *args: function(*args, root=copy)

    monkeypatch.setattr(prompts, "ROOT", copy)
    for name in ("labels", "versions", "load_prompt"):
        monkeypatch.setattr(prompts, name, bound(getattr(loader, name)))
    return copy


def test_prompts_list_names_versions_and_labels(hmas):
    rows = json.loads(hmas("prompts", "list", "--json")[1])
    assert any(row["name"] == "policy" and "current" in row["labels"] for row in rows)
    assert "current" in hmas("prompts", "list")[1]


def test_prompts_show_fills_in_a_sample(hmas):
    _, out, _ = hmas("prompts", "show")
    assert "$summary" not in out
    assert "sha256" in out
    assert "$summary" in hmas("prompts", "show", "policy", "--no-rendered")[1]
    assert hmas("prompts", "show", "nonsense")[0] == 2


def test_prompts_check_passes_on_ours(hmas):
    code, out, _ = hmas("prompts", "check", "--json")
    assert code == 0
    assert all(row["ok"] and row["approx_tokens"] < 1500 for row in json.loads(out))


def test_prompts_check_names_a_variable_that_nobody_fills_in(hmas, root):
    path = root / "policy" / "v1.md"
    text = path.read_text().replace("variables: [", "variables: [weather, ")
    path.write_text(text + "\nThe weather is $weather.\n")
    code, out, _ = hmas("prompts", "check")
    assert code == 1
    assert "weather" in out


def test_prompts_check_names_a_label_without_a_version(hmas, root):
    (root / "labels.toml").write_text("[policy]\ncurrent = 99\n")
    code, out, _ = hmas("prompts", "check")
    assert code == 1
    assert "current = 99: no such version" in out


def test_tools_list_shows_every_tool_with_its_bounds(hmas):
    _, out, _ = hmas("tools", "list")
    for tool in describe_tools():
        assert tool["name"] in out
    assert "0.0 .. 0.5" in out
    assert json.loads(hmas("tools", "list", "--json")[1]) == describe_tools()


def test_tools_list_of_one_or_of_none(hmas):
    (tool,) = json.loads(hmas("tools", "list", "switch_policy", "--json")[1])
    assert tool["name"] == "switch_policy"
    code, _, err = hmas("tools", "list", "format_disk")
    assert code == 2
    assert "no tool 'format_disk'" in err


def test_config_prints_what_a_file_resolves_to(hmas, tmp_path):
    assert Config.model_validate(tomllib.loads(hmas("config")[1])) == Config()
    (tmp_path / "hmas.toml").write_text('[control]\nmode = "act"\n')
    printed = tomllib.loads(hmas("config")[1])
    assert Config.model_validate(printed) == load_config(None, {"control.mode": "act"})
    other = tmp_path / "other.toml"
    other.write_text("[twin]\nwindow = 3\n")
    code, _, err = hmas("config", "--config", other)
    assert code == 2
    assert f"hmas: {other}:2: twin.window: unknown key" in err
