"""Prompts: what loads also renders; what is broken is named by file, line and key."""

from pathlib import Path

import pytest

from hmas_agents.agents.reply import SCHEMA_VERSION
from prompts.loader import ROOT, PromptError, labels, load_prompt, sha256, versions

GOOD = """---
name: policy
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


def write(root: Path, text: str = GOOD, label: str = "[policy]\ncurrent = 1\n") -> Path:
    (root / "policy").mkdir()
    (root / "policy" / "v1.md").write_text(text)
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
    prompt = load_prompt("policy", "current", write(tmp_path))
    messages = prompt.render(who="$you")
    assert messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello $you, that is $5."},
    ]
    assert sha256(messages) == sha256(prompt.render(who="$you"))
    assert sha256(messages) != sha256(prompt.render(who="me"))


@pytest.mark.parametrize("values", [{}, {"who": "a", "else_": "b"}])
def test_missing_and_unknown_values_are_refused(tmp_path, values):
    prompt = load_prompt("policy", 1, write(tmp_path))
    with pytest.raises(PromptError, match="who" if not values else "else_"):
        prompt.render(**values)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("version: 1\n", "version: 2\n", "v1.md:3: version"),
        ("name: policy", "name: other", "v1.md:2: name"),
        ("schema_version: 1\n", "schema_version: x\n", "v1.md:4: schema_version"),
        ("description: For tests.\n", "colour: red\n", "description"),
        ("variables: [who]", "variables: [who, what]", "v1.md:6: variables: 'what'"),
        ("variables: [who]", "variables: [who", "v1.md:6: front matter"),
        ("Be brief.", "Be $brief.", r"v1.md:9: \$brief"),
        ("$$5", "$5", r"v1.md:12: \$"),
        ("## user\n", "## human\n", "v1.md:8: body"),
        ("---\nname", "name", "v1.md:1: front matter"),
    ],
)
def test_a_broken_prompt_is_named_by_file_line_and_key(tmp_path, old, new, named):
    root = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(PromptError, match=named):
        load_prompt("policy", 1, root)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[policy]\ncurrent = 'x'\n", "labels.toml:2: policy.current"),
        ("[policy]\ncurrent =\n", "labels.toml:2"),
        ("policy = 1\n", "labels.toml:1: policy"),
        ("[policy]\nother = 1\n", "policy.current: no such label"),
    ],
)
def test_a_broken_label_is_named(tmp_path, text, named):
    with pytest.raises(PromptError, match=named):
        load_prompt("policy", "current", write(tmp_path, label=text))


def test_unknown_prompts_and_versions_are_named(tmp_path):
    root = write(tmp_path)
    with pytest.raises(PromptError, match="no such prompt"):
        load_prompt("poetry", 1, root)
    with pytest.raises(PromptError, match="version 3 does not exist"):
        load_prompt("policy", 3, root)
