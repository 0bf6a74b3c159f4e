"""`hmas tools` and `hmas config` print what is there."""

import json
import tomllib

from hmas_agents.commands import tools
from hmas_agents.config import Config, load_config
from tools import describe_tools


def test_tools_list_shows_every_tool_with_its_bounds(hmas):
    _, out, _ = hmas("tools", "list")
    for tool in describe_tools():
        assert f"{tool['name']}  {tool['file']}" in out
    assert "0.0 .. 0.6" in out
    assert json.loads(hmas("tools", "list", "--json")[1]) == describe_tools()


def test_tools_list_tells_what_is_wrong_with_a_broken_file(hmas, monkeypatch):
    problem = "tools/set_x.py:3: NameError: name '[MOST]' is not defined"
    row = {"name": "set_x", "file": "tools/set_x.py", "problem": problem}
    monkeypatch.setattr(tools, "describe_tools", lambda: [*describe_tools(), row])
    code, out, _ = hmas("tools", "list")
    assert code == 1
    assert f"broken: {problem}" in out
    assert "switch_policy" in out
    assert json.loads(hmas("tools", "list", "set_x", "--json")[1]) == [row]
    assert hmas("tools", "list", "switch_policy")[0] == 0


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
    assert f"hmas config: {other}:2: twin.window: unknown key" in err
