"""Does everything that the documentation quotes exist: paths, commands, options, names?

Read are code spans and fenced blocks of the pages in docs, README.md files and CONTRIBUTING.md.
Placeholders are written in capitals (`serving/policies/NAME.py`) or start with `my_`.
"""

import re
import sys
from pathlib import Path

import pytest

from tests.source_tree import ROOT, files, folders, label

DOCUMENTS = sorted({*files("README.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md"})
SUFFIXES = {".py", ".toml", ".md", ".json", ".yml", ".yaml"}
PLACEHOLDER = re.compile(r"(^|[/.])(my_|[A-Z][A-Z_]+(?=[/.]|$))|[<>{}$*\[\]=]|\.\.\.")
NOT_PLACEHOLDERS = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"}
HMAS = re.compile(r"(?<![\w/.-])(?:\.venv/bin/)?hmas((?: +[^\s#;&|]+(?:\|[^\s#;&|]+)*)+)")
MAKE = re.compile(r"(?<![\w/.\"-])make ([a-z][\w-]*)")
CLASS = re.compile(r"[A-Z][a-z0-9]*[A-Z]\w*[a-z]\w*(?:\.\w+)?(?:\(\))?")
VARIABLE = re.compile(r"HMAS_[A-Z_]+")


def quotes(document: Path) -> list[str]:
    """Code spans, and the lines of fenced blocks with continued lines joined."""
    text = document.read_text()
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.M | re.S)
    prose = re.sub(r"^```[^\n]*\n.*?^```", "", text, flags=re.M | re.S)
    lines = "\n".join(fenced).replace("\\\n", " ").splitlines()
    return [*re.findall(r"`([^`\n]+)`", prose), *(line.strip() for line in lines if line.strip())]


def quoted_paths(quote: str) -> list[str]:
    """Words that name a file or folder of this repository."""
    tops = {folder.name for folder in folders()}
    words = (word.strip("`'\",;:()").removeprefix("./") for word in quote.split())
    return [
        word
        for word in words
        if (Path(word).suffix in SUFFIXES or ("/" in word and word.split("/")[0] in tops))
        and not word.startswith(("/", "http", "var/", "~", "../"))
        and (word in NOT_PLACEHOLDERS or not PLACEHOLDER.search(word.removesuffix("README.md")))
    ]


def exists(path: str, document: Path) -> bool:
    """Whether a quoted path exists from the root, beside the document, or by its bare name."""
    if (ROOT / path).exists() or (document.parent / path).exists():
        return True
    return "/" not in path and document.parent != ROOT and any(document.parent.rglob(path))


def commands(quote: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Each `hmas` command in a quote: its words and its options; `list|show` gives two."""
    found = []
    for match in HMAS.findall(re.split(r"\s#", quote)[0]):
        words: list[list[str]] = []
        arguments = match.split()
        for argument in arguments:
            if not re.fullmatch(r"[a-z]+(\|[a-z]+)*", argument):
                break
            words.append(argument.split("|"))
        options = tuple(a.split("=")[0] for a in arguments if re.match(r"--[a-z]", a))
        heads: list[tuple[str, ...]] = [()]
        for choices in words:
            heads = [(*head, choice) for head in heads for choice in choices]
        found += [(head, options) for head in heads]
    return found


COMMANDS = sorted({c for document in DOCUMENTS for q in quotes(document) for c in commands(q)})


def test_the_readers_of_quotes_find_what_they_should():
    assert commands(".venv/bin/hmas trace list|show --json | jq  # hmas no") == [
        (("trace", "list"), ("--json",)),
        (("trace", "show"), ("--json",)),
    ]
    assert commands("hmas eval run evals/a.toml --seed=3") == [(("eval", "run"), ("--seed",))]
    assert commands("evals.hmas x, /hmas/snapshot, x-hmas-tenant") == []
    quote = "cp serving/hook/queue.py serving/policies/NAME.py var/x.md tools/README.md /metrics"
    assert quoted_paths(quote) == ["serving/hook/queue.py", "tools/README.md"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=label)
def test_quoted_paths_exist(document):
    paths = {path for quote in quotes(document) for path in quoted_paths(quote)}
    assert sorted(path for path in paths if not exists(path, document)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=label)
def test_links_lead_to_files(document):
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text())
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=label)
def test_quoted_names_and_variables_occur_in_the_code(document):
    code = "\n".join(p.read_text() for p in [*files("*.py"), ROOT / "Makefile", ROOT / ".ci/run"])
    words = set(re.findall(r"\w+", code))
    names = {
        re.split(r"[.(]", quote)[0] for quote in quotes(document) if CLASS.fullmatch(quote)
    } | {name for quote in quotes(document) for name in VARIABLE.findall(quote)}
    assert sorted(names - words) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=label)
def test_quoted_make_targets_exist(document):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    quoted = {target for quote in quotes(document) for target in MAKE.findall(quote)}
    assert sorted(quoted - targets) == []


def options_missing(words, options, monkeypatch, capsys) -> list[str]:
    """Which of the options `hmas WORDS --help` does not show; the command must exist."""
    from hmas_agents.cli import main

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "argv", ["hmas", *words, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in {0, None}
    text = capsys.readouterr().out
    return [option for option in options if option not in text]


@pytest.mark.parametrize(("words", "options"), COMMANDS, ids=" ".join)
def test_quoted_hmas_commands_and_options_exist(words, options, monkeypatch, capsys):
    missing = options_missing(words, options, monkeypatch, capsys)
    if words[:1] != ("serve",):  # what it does not know it passes through to vLLM
        assert missing == []
