"""What is the model told, and which version of it?

Loads `prompts/NAME/vN.md`: YAML front matter, then a system and a user part with
`$variables`. Called by the long horizon and by `hmas prompts`. Everything is
checked when loaded, so that a prompt that loads also renders.
"""

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

ROOT = Path(__file__).parent
LABELS = "labels.toml"

Message = dict[str, str]
_PARTS: tuple[Literal["system", "user"], ...] = ("system", "user")


class PromptError(ValueError):
    """A prompt that cannot be used: `FILE:LINE: KEY: what is wrong`."""


class FrontMatter(BaseModel):
    """The head of a prompt file. Model settings left out are the configuration's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: int = Field(ge=1)
    schema_version: int = Field(ge=1)
    description: str
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    variables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One version of a prompt, checked."""

    path: Path
    head: FrontMatter
    system: str
    user: str

    def render(self, **values: str) -> list[Message]:
        """The chat messages with every variable filled in.

        Raises:
            PromptError: a variable is missing, or a value has no variable.
        """
        known = set(self.head.variables)
        if missing := sorted(known - set(values)):
            raise PromptError(f"{self.path}: {missing[0]}: variable has no value")
        if unknown := sorted(set(values) - known):
            raise PromptError(f"{self.path}: {unknown[0]}: not a variable of this prompt")
        texts = (self.system, self.user)
        return [
            {"role": role, "content": Template(text).substitute(values)}
            for role, text in zip(_PARTS, texts, strict=True)
        ]


def sha256(messages: list[Message]) -> str:
    """Hash of messages exactly as sent (canonical JSON, UTF-8)."""
    text = json.dumps(messages, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def versions(name: str, root: Path = ROOT) -> list[int]:
    """Versions of a prompt on disk, oldest first; empty when there is no such prompt."""
    found = (re.fullmatch(r"v(\d+)\.md", path.name) for path in (root / name).glob("v*.md"))
    return sorted(int(match[1]) for match in found if match)


def labels(root: Path = ROOT) -> dict[str, dict[str, int]]:
    """Prompt name -> label -> version.

    Raises:
        PromptError: the label file is missing or broken; names file, line and key.
    """
    path = root / LABELS
    text = _read(path)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        raise PromptError(f"{path}:{place[1] if place else 1}: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise PromptError(f"{path}:{_line(text, name)}: {name}: must be a table of labels")
        for label, version in table.items():
            if type(version) is not int:
                raise PromptError(
                    f"{path}:{_line(text, label)}: {name}.{label}: must be a version number, "
                    f"got {version!r}"
                )
    return tables


def load_prompt(name: str, label_or_version: str | int, root: Path = ROOT) -> Prompt:
    """One version of a prompt, by number or by label.

    Raises:
        PromptError: no such prompt, label or version, or a file that does not hold together.
    """
    have = versions(name, root)
    if not have:
        raise PromptError(f"{root / name}: {name}: no such prompt (no v1.md there)")
    version = _resolve(name, label_or_version, root)
    if version not in have:
        raise PromptError(f"{root / name}: version {version} does not exist; there are {have}")
    return _parse(root / name / f"v{version}.md", name, version)


def _resolve(name: str, label_or_version: str | int, root: Path) -> int:
    if isinstance(label_or_version, int):
        return label_or_version
    if label_or_version.isdecimal():
        return int(label_or_version)
    table = labels(root).get(name, {})
    if label_or_version not in table:
        raise PromptError(
            f"{root / LABELS}: {name}.{label_or_version}: no such label; "
            f"there are {', '.join(table) or 'none'}"
        )
    return table[label_or_version]


def _parse(path: Path, name: str, version: int) -> Prompt:
    text = _read(path)
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if match is None:
        raise PromptError(f"{path}:1: front matter: must open with --- and close with ---")
    head = _front_matter(path, match[1])
    for key, value in (("name", name), ("version", version)):
        if getattr(head, key) != value:
            raise PromptError(
                f"{path}:{1 + _line(match[1], key)}: {key}: must be {value!r} as in the path, "
                f"got {getattr(head, key)!r}"
            )
    sections = re.split(r"^## (system|user)\n", text[match.end() :], flags=re.MULTILINE)
    if tuple(sections[1::2]) != _PARTS or sections[0].strip():
        line = text[: match.end()].count("\n") + 1
        raise PromptError(f"{path}:{line}: body: must be a `## system` part, then a `## user` part")
    _check_variables(path, text, match.end(), head)
    return Prompt(path, head, sections[2].strip(), sections[4].strip())


def _front_matter(path: Path, text: str) -> FrontMatter:
    try:
        data: Any = yaml.safe_load(text)
        return FrontMatter.model_validate(data)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else 2
        raise PromptError(f"{path}:{line}: front matter: {error.problem}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "front matter"
        line = 1 + _line(text, key.split(".")[0])
        what = f"{first['msg']} (got {first['input']!r})"
        raise PromptError(f"{path}:{line}: {key}: {what}") from error


def _check_variables(path: Path, text: str, body_at: int, head: FrontMatter) -> None:
    used = set()
    for match in Template.pattern.finditer(text, body_at):
        line = text.count("\n", 0, match.start()) + 1
        if match["invalid"] is not None:
            raise PromptError(f"{path}:{line}: $: write $$ for a dollar sign")
        name = match["named"] or match["braced"]
        if name is not None and name not in head.variables:
            raise PromptError(f"{path}:{line}: ${name}: not among the front matter's variables")
        used.add(name)
    for name in head.variables:
        if name not in used:
            line = 1 + _line(text[:body_at].removeprefix("---\n"), "variables")
            raise PromptError(f"{path}:{line}: variables: {name!r} does not occur in the body")


def _line(text: str, key: str) -> int:
    """1-based line of `text` that sets `key` (or opens the table of that name), else 1."""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(rf"\[?\s*{re.escape(key)}\b", line):
            return number
    return 1


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: cannot be read: {error}") from error
