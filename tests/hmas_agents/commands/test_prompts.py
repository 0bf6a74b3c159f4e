"""`hmas prompts` lists, shows, publishes and compares versions, and moves labels."""

import io
import json
import shutil
import sys

import pytest

from hmas_agents.commands import prompt_check, prompts
from prompts import loader
from prompts.loader import labels, load_prompt, versions
from prompts.store import digest

FIRST = (loader.ROOT / "policy" / "v1.md").read_text()
SECOND = FIRST.replace("under twelve words", "under eight words")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Prompts of its own, with one published version, for a test to change."""
    copy = tmp_path / "prompts"
    (copy / "policy").mkdir(parents=True)
    shutil.copyfile(loader.ROOT / "policy" / "v1.md", copy / "policy" / "v1.md")
    (copy / "labels.toml").write_text("[policy]\ncurrent = 1\n")
    (copy / "versions.lock").write_text(f"{digest(FIRST)}  policy/v1.md\n")
    monkeypatch.setattr(prompts, "ROOT", copy)
    monkeypatch.setattr(prompt_check, "ROOT", copy)
    return copy


@pytest.fixture
def typed(monkeypatch):
    """What comes in on standard input, at a terminal or from a pipe."""

    def type_in(text, at_terminal=False):
        stream = io.StringIO(text)
        stream.isatty = lambda: at_terminal  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", stream)

    return type_in


def test_list_names_versions_and_labels(hmas):
    rows = json.loads(hmas("prompts", "list", "--json")[1])
    assert any(row["name"] == "policy" and "current" in row["labels"] for row in rows)
    assert all(row["published"] for row in rows)
    assert "current" in hmas("prompts", "list")[1]


def test_list_shows_drafts_and_broken_versions_beside_the_others(hmas, root):
    (root / "policy" / "v2.md").write_text("nothing")
    code, out, _ = hmas("prompts", "list")
    assert code == 0
    assert "v2 (draft)" in out
    assert "broken: " in out
    assert "current" in out


def test_show_fills_in_a_sample(hmas):
    _, out, _ = hmas("prompts", "show")
    assert "$summary" not in out
    assert "sha256" in out
    assert "$summary" in hmas("prompts", "show", "policy", "--no-rendered")[1]
    assert hmas("prompts", "show", "nonsense")[0] == 2


def test_new_publishes_a_file(hmas, root, tmp_path):
    draft = tmp_path / "draft.md"
    draft.write_text(SECOND)
    code, out, _ = hmas("prompts", "new", "policy", "--file", draft)
    assert code == 0
    assert "published as version 2" in out
    assert "hmas prompts label candidate 2" in out
    assert "eight" in load_prompt("policy", 2, root).system
    assert labels(root) == {"policy": {"current": 1}}


@pytest.mark.parametrize("argv", [[], ["--file", "-"]])
def test_new_publishes_what_a_pipe_brings(hmas, root, typed, argv):
    typed(SECOND)
    code, out, _ = hmas("prompts", "new", *argv, "--json")
    assert code == 0
    row = json.loads(out)
    assert (row["version"], row["path"]) == (2, str(root / "policy" / "v2.md"))


def test_new_opens_the_editor_on_the_version_to_start_from(hmas, root, typed, monkeypatch):
    typed("", at_terminal=True)
    monkeypatch.setenv("EDITOR", "sed -i s/twelve/eight/")
    assert hmas("prompts", "new")[0] == 0
    monkeypatch.setenv("EDITOR", "sed -i s/eight/nine/")
    assert hmas("prompts", "new", "--from", "2")[0] == 0
    assert "nine" in load_prompt("policy", 3, root).system
    assert "eight" in load_prompt("policy", 2, root).system


def test_new_makes_nothing_of_an_editor_that_changed_nothing(hmas, root, typed, monkeypatch):
    typed("", at_terminal=True)
    monkeypatch.setenv("EDITOR", "true")
    code, _, err = hmas("prompts", "new")
    assert (code, versions("policy", root)) == (1, [1])
    assert "nothing was changed" in err


def test_what_was_typed_into_the_editor_is_not_lost(hmas, root, typed, monkeypatch):
    typed("", at_terminal=True)
    monkeypatch.setenv("EDITOR", "sed -i s/.summary/$weather/")
    code, _, err = hmas("prompts", "new")
    assert (code, versions("policy", root)) == (2, [1])
    assert "weather" in err
    kept = err.partition("your text is in ")[2].partition(":")[0]
    with open(kept, encoding="utf-8") as file:  # noqa: PTH123  a path in a message
        assert "$weather" in file.read()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("$summary", "$weather", "$weather: not among"),
        ("schema_version: 1", "schema_version: 2", "reads replies of version 1, got 2"),
    ],
)
def test_new_refuses_what_the_agent_could_not_use(hmas, root, typed, old, new, said):
    typed(SECOND.replace(old, new))
    code, _, err = hmas("prompts", "new")
    assert (code, versions("policy", root)) == (2, [1])
    assert said in err


def test_new_names_a_file_that_is_not_there(hmas, root):
    code, _, err = hmas("prompts", "new", "--file", "nowhere.md")
    assert code == 2
    assert "nowhere.md" in err


def test_diff_compares_current_with_candidate_unless_told_otherwise(hmas, root, typed):
    typed(SECOND)
    hmas("prompts", "new")
    assert "candidate: no such label" in hmas("prompts", "diff")[2]
    hmas("prompts", "label", "candidate", 2)
    code, out, _ = hmas("prompts", "diff")
    assert code == 0
    assert "+++ policy/v2.md" in out
    assert "eight" in out
    assert "\x1b[" not in out
    assert hmas("prompts", "diff", 1, 2, "--name", "policy")[1] == out
    code, out, err = hmas("prompts", "diff", 1, "current")
    assert (code, out) == (0, "")
    assert "1 and current are the same" in err


def test_label_moves_and_is_taken_away(hmas, root, typed):
    typed(SECOND)
    hmas("prompts", "new")
    assert "policy.candidate: unset > v2" in hmas("prompts", "label", "candidate", 2)[1]
    assert "policy.current: v1 > v2" in hmas("prompts", "label", "current", "candidate")[1]
    assert "policy.candidate: v2 > unset" in hmas("prompts", "label", "candidate", "--unset")[1]
    assert labels(root) == {"policy": {"current": 2}}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["candidate"], "either a version or --unset"),
        (["candidate", "1", "--unset"], "either a version or --unset"),
        (["candidate", "9"], "version 9 does not exist"),
        (["best", "1"], "labels are current and candidate"),
        (["current", "--unset"], "is in use"),
    ],
)
def test_label_refuses_what_means_nothing(hmas, root, argv, said):
    code, _, err = hmas("prompts", "label", *argv)
    assert code == 2
    assert said in err
    assert labels(root) == {"policy": {"current": 1}}
