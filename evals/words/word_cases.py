"""What is a case of an operator's words? A text, and the changes it stands for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hmas_agents.intent.change import Answer, ChangeError, Clock, Names, read_answer

_ASKED = {"question": "?"}  # a case says that it is asked, not in which words


@dataclass(frozen=True, slots=True)
class WordCase:
    """One text at one time under one contract, and what it means; a question where it's unclear."""

    text: str
    now: str
    names: Names
    expected: Answer


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(min_length=1)
    now: Clock
    contract: Names
    expected: list[dict[str, Any]] | dict[str, bool]


def read_word_cases(path: Path) -> list[WordCase]:
    """Every case of a JSONL file.

    Raises:
        ChangeError: `FILE:LINE: what is wrong`.
    """
    cases = [_case(f"{path}:{number}", line) for number, line in _lines(path)]
    if not cases:
        raise ChangeError(f"{path}: holds no case")
    return cases


def _case(place: str, line: str) -> WordCase:
    try:
        row = _Row.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ChangeError(f"{place}: {key + ': ' if key else ''}{first['msg']}") from error
    expected = row.expected
    if isinstance(expected, dict) and expected != {"question": True}:
        raise ChangeError(f'{place}: expected: a list of changes, or {{"question": true}}')
    try:
        reply = _ASKED if isinstance(expected, dict) else expected
        answer = read_answer(reply, row.contract, row.now)
    except ChangeError as error:
        raise ChangeError(f"{place}: expected: {error}") from error
    return WordCase(row.text, row.now, row.contract, answer)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ChangeError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ChangeError(f"{path}: not UTF-8 text: {error.reason}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line
