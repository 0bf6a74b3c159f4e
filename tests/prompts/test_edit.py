"""Versions are written once and whole, labels move, and writers take turns."""

import multiprocessing
import os
import re
import shutil
import stat
from pathlib import Path

import pytest

from prompts import edit
from prompts.edit import check_text, diff, new_version, set_label
from prompts.loader import ROOT, PromptError, labels, load_prompt, versions
from prompts.store import digest, published

FIRST = (ROOT / "policy" / "v1.md").read_text()
SECOND = FIRST.replace("under twelve words", "under eight words")


@pytest.fixture
def root(tmp_path):
    """Prompts with one published version."""
    copy = tmp_path / "prompts"
    shutil.copytree(ROOT / "policy", copy / "policy")
    (copy / "labels.toml").write_text("# What is in use.\n[policy]\ncurrent = 1\n")
    (copy / "versions.lock").write_text(f"{digest(FIRST)}  policy/v1.md\n")
    for path in (copy / "policy").glob("v*.md"):
        if path.name != "v1.md":
            path.unlink()
    return copy


def contents(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}


def test_a_new_version_gets_the_next_number_and_is_read_only(root):
    assert new_version("policy", SECOND, root) == 2
    path = root / "policy" / "v2.md"
    assert load_prompt("policy", 2, root).head.version == 2
    assert "under eight words" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert published(root)["policy/v2.md"] == digest(path.read_text())
    assert labels(root) == {"policy": {"current": 1}}
    assert (root / "policy" / "v1.md").read_text() == FIRST


@pytest.mark.parametrize(
    "text",
    [
        SECOND.replace("version: 1\n", "", 1),
        SECOND.replace("version: 1\n", "version: 77\n", 1),
        SECOND.replace("\n", "\r\n"),
        "\n\n" + SECOND.rstrip(),
    ],
    ids=["no version", "a wrong version", "line ends of Windows", "blank lines around"],
)
def test_what_a_writer_need_not_care_about_is_put_right(root, text):
    new_version("policy", SECOND, root)
    number = new_version("policy", text, root)
    assert load_prompt("policy", number, root).user == load_prompt("policy", 2, root).user


def test_a_broken_text_is_refused_with_every_problem_and_nothing_is_written(root):
    before = contents(root)
    text = SECOND.replace("$summary", "$weather").replace("description", "colour", 1)
    problems = check_text("policy", text.replace("colour", "description"), root)
    assert len(problems) == 2
    assert re.search(r"v2.md:\d+: \$weather: not among", problems[0])
    assert re.search(r"v2.md:8: variables: 'summary' does not occur", problems[1])
    with pytest.raises(PromptError, match=r"v2.md:5: colour"):
        new_version("policy", text, root)
    assert contents(root) == before
    assert check_text("policy", SECOND, root) == []


@pytest.mark.parametrize("name", ["../policy", "Policy", "", "policy/v1"])
def test_a_name_cannot_lead_out_of_the_folder(root, name):
    before = contents(root)
    assert "a prompt's name is" in check_text(name, SECOND, root)[0]
    with pytest.raises(PromptError, match="a prompt's name is"):
        new_version(name, SECOND, root)
    assert contents(root) == before


def test_text_that_cannot_be_stored_is_a_problem(root):
    assert "is not text" in check_text("policy", SECOND + "\ud800", root)[0]


def test_a_prompt_of_a_new_name_starts_at_one(root):
    text = FIRST.replace("name: policy", "name: greeting", 1)
    assert new_version("greeting", text, root) == 1
    assert "name: must be 'greeting'" in check_text("greeting", FIRST, root)[0]


def test_the_number_of_a_deleted_version_is_not_used_again(root):
    new_version("policy", SECOND, root)
    (root / "policy" / "v2.md").unlink()
    assert new_version("policy", SECOND, root) == 3


def test_what_cannot_be_written_leaves_nothing_behind(root, monkeypatch):
    before = contents(root)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PromptError, match="No space left"):
        new_version("policy", SECOND, root)
    assert contents(root) == before


def test_a_killed_writer_leaves_a_draft_and_the_next_number_is_free(root, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(edit, "_lock", killed)
        with pytest.raises(KeyboardInterrupt):
            new_version("policy", SECOND, root)
    assert load_prompt("policy", 2, root).head.version == 2
    assert "policy/v2.md" not in published(root)
    assert new_version("policy", SECOND, root) == 3


def publish_some(root: Path, count: int) -> None:
    for _ in range(count):
        new_version("policy", SECOND, root)


def test_writers_at_the_same_time_take_different_numbers(root):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=publish_some, args=(root, 10)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert versions("policy", root) == list(range(1, 42))
    assert set(published(root)) == {f"policy/v{number}.md" for number in range(1, 42)}
    assert sorted(p.name for p in (root / "policy").glob(".*")) == []


def test_a_label_moves_and_goes_away_and_the_comment_stays(root):
    new_version("policy", SECOND, root)
    set_label("policy", "candidate", 2, root)
    assert labels(root) == {"policy": {"current": 1, "candidate": 2}}
    set_label("policy", "current", 2, root)
    set_label("policy", "candidate", None, root)
    assert labels(root) == {"policy": {"current": 2}}
    assert (root / "labels.toml").read_text().startswith("# What is in use.\n[policy]\n")


def test_a_label_on_another_prompt_leaves_the_first_alone(root):
    new_version("greeting", FIRST.replace("name: policy", "name: greeting", 1), root)
    set_label("greeting", "current", 1, root)
    assert labels(root) == {"policy": {"current": 1}, "greeting": {"current": 1}}


@pytest.mark.parametrize(
    ("label", "version", "named"),
    [
        ("newest", 1, "labels are current and candidate"),
        ("candidate", 9, "version 9 does not exist"),
        ("current", None, "is in use"),
    ],
)
def test_a_label_that_would_mean_nothing_is_refused(root, label, version, named):
    before = contents(root)
    with pytest.raises(PromptError, match=named):
        set_label("policy", label, version, root)
    assert contents(root) == before


def test_a_broken_version_gets_no_label(root):
    (root / "policy" / "v2.md").write_text("no front matter")
    with pytest.raises(PromptError, match=r"v2.md:1"):
        set_label("policy", "candidate", 2, root)


def test_a_label_publishes_a_draft(root):
    path = root / "policy" / "v2.md"
    path.write_text(SECOND.replace("version: 1\n", "version: 2\n", 1))
    set_label("policy", "candidate", 2, root)
    assert published(root)["policy/v2.md"] == digest(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_a_diff_shows_what_changed_between_labels_or_numbers(root):
    new_version("policy", SECOND, root)
    set_label("policy", "candidate", 2, root)
    text = diff("policy", "current", "candidate", root)
    assert text.startswith("--- policy/v1.md\n+++ policy/v2.md\n")
    changed = [line for line in text.splitlines() if re.match(r"[+-][^+-]", line)]
    assert [line[0] for line in changed] == ["-", "+", "-", "+"]
    assert "eight" in changed[-1]
    assert text == diff("policy", 1, "v2", root)
    assert diff("policy", 1, 1, root) == ""
    with pytest.raises(PromptError, match="version 3 does not exist"):
        diff("policy", 1, 3, root)
