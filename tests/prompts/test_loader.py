"""Prompts: what loads also renders; what is broken is named by file, line and key."""

from pathlib import Path

import pytest

from hmas_agents.agents.reply import SCHEMA_VERSION
from prompts.loader import ROOT, PromptError, labels, load_prompt, sha256, versions
from prompts.store import digest, names, published, version_path

GOOD = """---
name: greeting
version: 1
schema_version: 1
description: For tests.
variables: [who]
---
## system
Be brief.

## user
Hello $who, that is $$5.
"""


def write(root: Path, text: str = GOOD, label: str = "[greeting]\ncurrent = 1\n") -> Path:
    (root / "greeting").mkdir()
    (root / "greeting" / "v1.md").write_text(text)
    (root / "labels.toml").write_text(label)
    return root


def test_every_shipped_prompt_loads_and_every_label_points_at_one():
    for name, table in labels().items():
        assert versions(name)
        for version in versions(name):
            assert load_prompt(name, version).head.version == version
        for label in table:
            assert load_prompt(name, label).head.version == table[label]
    assert load_prompt("policy", "current").head.schema_version == SCHEMA_VERSION
    assert load_prompt("policy", "1").path == ROOT / "policy" / "v1.md"


def test_rendering_fills_in_and_hashes_what_is_sent(tmp_path):
    prompt = load_prompt("greeting", "current", write(tmp_path))
    messages = prompt.render(who="$you")
    assert messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello $you, that is $5."},
    ]
    assert sha256(messages) == sha256(prompt.render(who="$you"))
    assert sha256(messages) != sha256(prompt.render(who="me"))


@pytest.mark.parametrize("values", [{}, {"who": "a", "else_": "b"}])
def test_missing_and_unknown_values_are_refused(tmp_path, values):
    prompt = load_prompt("greeting", 1, write(tmp_path))
    with pytest.raises(PromptError, match="who" if not values else "else_"):
        prompt.render(**values)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("version: 1\n", "version: 2\n", "v1.md:3: version"),
        ("name: greeting", "name: other", "v1.md:2: name"),
        ("schema_version: 1\n", "schema_version: x\n", "v1.md:4: schema_version"),
        ("description: For tests.\n", "colour: red\n", "description"),
        ("variables: [who]", "variables: [who, what]", "v1.md:6: variables: 'what'"),
        ("variables: [who]", "variables: [who", "v1.md:6: front matter"),
        ("Be brief.", "Be $brief.", r"v1.md:9: \$brief"),
        ("$$5", "$5", r"v1.md:12: \$"),
        ("## user\n", "## human\n", "v1.md:8: body"),
        ("---\nname", "name", "v1.md:1: front matter"),
        ("For tests.", "2026-13-45", "v1.md:2: front matter"),
    ],
)
def test_a_broken_prompt_is_named_by_file_line_and_key(tmp_path, old, new, named):
    root = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(PromptError, match=named):
        load_prompt("greeting", 1, root)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[greeting]\ncurrent = 'x'\n", "labels.toml:2: greeting.current"),
        ("[greeting]\ncurrent =\n", "labels.toml:2"),
        ("greeting = 1\n", "labels.toml:1: greeting"),
        ("[greeting]\nother = 1\n", "greeting.current: no such label"),
    ],
)
def test_a_broken_label_is_named(tmp_path, text, named):
    with pytest.raises(PromptError, match=named):
        load_prompt("greeting", "current", write(tmp_path, label=text))


def test_unknown_prompts_and_versions_are_named(tmp_path):
    root = write(tmp_path)
    with pytest.raises(PromptError, match="no such prompt"):
        load_prompt("poetry", 1, root)
    with pytest.raises(PromptError, match="version 3 does not exist"):
        load_prompt("greeting", 3, root)


def test_every_problem_is_told_at_once(tmp_path):
    text = GOOD.replace("Be brief.", "Be $brief.").replace("version: 1\n", "version: 2\n", 1)
    with pytest.raises(PromptError) as caught:
        load_prompt("greeting", 1, write(tmp_path, text))
    assert ["version" in problem or "$brief" in problem for problem in caught.value.problems] == [
        True,
        True,
    ]


def test_a_variable_of_the_policy_prompt_that_nobody_fills_in_is_named(tmp_path):
    (tmp_path / "policy").mkdir()
    text = GOOD.replace("name: greeting", "name: policy")
    (tmp_path / "policy" / "v1.md").write_text(text)
    with pytest.raises(PromptError, match=r"v1.md:6: variables: 'who' is filled in by nobody"):
        load_prompt("policy", 1, tmp_path)


def test_a_published_version_that_was_edited_is_refused(tmp_path):
    root = write(tmp_path)
    path = root / "greeting" / "v1.md"
    (root / "versions.lock").write_text(f"{digest(GOOD)}  greeting/v1.md\n")
    assert load_prompt("greeting", 1, root).system == "Be brief."
    path.write_text(GOOD.replace("brief", "short"))
    with pytest.raises(PromptError, match=r"v1.md was edited after it was published: make a new"):
        load_prompt("greeting", "current", root)
    path.write_text(GOOD)
    assert load_prompt("greeting", 1, root).system == "Be brief."


def test_a_broken_lock_file_is_named(tmp_path):
    root = write(tmp_path)
    (root / "versions.lock").write_text(f"{digest(GOOD)}  greeting/v1.md\nrubbish\n")
    with pytest.raises(PromptError, match=r"versions.lock:2: .*got 'rubbish'"):
        load_prompt("greeting", 1, root)


@pytest.mark.parametrize("name", ["..", "../greeting", "greeting/.", "Greeting", "", "a\0"])
def test_a_name_that_leads_elsewhere_is_no_prompt(tmp_path, name):
    root = write(tmp_path)
    with pytest.raises(PromptError, match="no such prompt"):
        load_prompt(name, 1, root / "greeting")
    with pytest.raises(PromptError, match="a prompt's name is"):
        version_path(name, 1, root)


def test_every_shipped_version_is_published_and_as_it_was():
    on_disk = {f"{name}/v{number}.md" for name in names() for number in versions(name)}
    assert set(published()) == on_disk
    for key, locked in published().items():
        assert digest((ROOT / key).read_text()) == locked
