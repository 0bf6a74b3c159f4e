"""What is the model told? A version of a prompt, checked and ready to be filled in.

`prompts/NAME/vN.md` is YAML front matter, then a system and a user part with
`$variables`. Called by the long horizon and by `hmas prompts`. Everything is
checked when loaded, so that a prompt that loads also renders.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prompts.store import (
    ROOT,
    PromptError,
    find_version,
    labels,
    line_of,
    names,
    read_version,
    version_path,
    versions,
)

# What is filled in by whoever sends a prompt of that name; of another name it may be anything.
VARIABLES: dict[str, tuple[str, ...]] = {
    "policy": ("policies", "parameters", "current", "summary"),
}

Message = dict[str, str]
_PARTS: tuple[Literal["system", "user"], ...] = ("system", "user")


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


def load_prompt(name: str, label_or_version: str | int, root: Path = ROOT) -> Prompt:
    """One version of a prompt, by number or by label.

    Raises:
        PromptError: no such prompt, label or version, one that was edited after it was
            published, or a file that does not hold together.
    """
    version = find_version(name, label_or_version, root)
    return parse(
        version_path(name, version, root), name, version, read_version(name, version, root)
    )


def parse(path: Path, name: str, version: int, text: str) -> Prompt:
    """The prompt that `text` would be at `path`.

    Raises:
        PromptError: with every problem that can be told at once.
    """
    text = text.replace("\r\n", "\n")
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if match is None:
        raise PromptError(f"{path}:1: front matter: must open with --- and close with ---")
    head = _front_matter(path, match[1])
    problems = [
        f"{path}:{1 + line_of(match[1], key)}: {key}: must be {value!r} as in the path, "
        f"got {getattr(head, key)!r}"
        for key, value in (("name", name), ("version", version))
        if getattr(head, key) != value
    ]
    sections = re.split(r"^## (system|user)\n", text[match.end() :], flags=re.MULTILINE)
    if tuple(sections[1::2]) != _PARTS or sections[0].strip():
        line = text[: match.end()].count("\n") + 1
        problems.append(f"{path}:{line}: body: must be a `## system` part, then a `## user` part")
    problems += _variable_problems(path, text, match.end(), head)
    if problems:
        raise PromptError("\n".join(problems))
    return Prompt(path, head, sections[2].strip(), sections[4].strip())


def _front_matter(path: Path, text: str) -> FrontMatter:
    try:
        data: Any = yaml.safe_load(text)
        return FrontMatter.model_validate(data)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else 2
        raise PromptError(f"{path}:{line}: front matter: {error.problem}") from error
    except yaml.YAMLError as error:  # characters that YAML does not know
        raise PromptError(f"{path}:2: front matter: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"]) or "front matter"
            line = 1 + line_of(text, key.split(".")[0])
            got = "" if item["type"] == "missing" else f" (got {item['input']!r})"
            problems.append(f"{path}:{line}: {key}: {item['msg']}{got}")
        raise PromptError("\n".join(problems)) from error
    except (ValueError, RecursionError) as error:  # a date that is none, a thousand brackets
        raise PromptError(f"{path}:2: front matter: {error}") from error


def _variable_problems(path: Path, text: str, body_at: int, head: FrontMatter) -> list[str]:
    """Variables that are used and not declared, declared and not used, or filled in by nobody."""
    problems, used = [], set()
    for match in Template.pattern.finditer(text, body_at):
        line = text.count("\n", 0, match.start()) + 1
        if match["invalid"] is not None:
            problems.append(f"{path}:{line}: $: write $$ for a dollar sign")
        name = match["named"] or match["braced"]
        if name is not None and name not in head.variables:
            problems.append(f"{path}:{line}: ${name}: not among the front matter's variables")
        used.add(name)
    line = 1 + line_of(text[:body_at].removeprefix("---\n"), "variables")
    filled_in = VARIABLES.get(head.name, head.variables)
    for name in head.variables:
        if name not in used:
            problems.append(f"{path}:{line}: variables: {name!r} does not occur in the body")
        if name not in filled_in:
            known = ", ".join(filled_in)
            problems.append(
                f"{path}:{line}: variables: {name!r} is filled in by nobody; there are {known}"
            )
    return problems


__all__ = [
    "ROOT",
    "VARIABLES",
    "FrontMatter",
    "Message",
    "Prompt",
    "PromptError",
    "labels",
    "load_prompt",
    "names",
    "parse",
    "sha256",
    "versions",
]
