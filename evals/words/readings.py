"""What do readers understand of the texts in a suite? Each text is read once, before any case runs.

A model's readings come from a file, so that a suite needs no model:
`hmas eval words --cases SUITE.toml --readings FILE` writes it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from evals.suite.contenders import EXACT
from evals.suite.suite import Suite
from evals.suite.words_spec import Readings
from evals.words.word_cases import WordCase
from evals.words.word_scores import Outcome, outcomes
from hmas_agents.intent.acting import refusals
from hmas_agents.intent.change import Change, ChangeError, Clock, Names
from hmas_agents.intent.grammar import Grammar
from serving.contracts import ContractInForce

ARM = "words-"  # and the name of a reader


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    reader: str
    text: str
    now: Clock
    changes: tuple[Change, ...]


def texts_of(suite: Suite) -> list[WordCase]:
    """Every text that operators may say in a suite, whatever the half and seed."""
    names = Names.of(suite.settings.contract)
    cases = {
        (text, words.now): WordCase(text, words.now, names, words.means)
        for scenario in suite.scenarios
        for words in scenario.words
        for text in words.texts
    }
    return list(cases.values())


def readings_for(suite: Suite, file: Path) -> dict[str, Readings]:
    """What comes into force of each text, by arm; nothing of one that is asked back about.

    Args:
        suite: its arms say which readers.
        file: of readings that a model made.

    Raises:
        ChangeError: the file is missing or broken, or lacks a text; says what to do.
    """
    found, cases = dict[str, Readings](), texts_of(suite)
    for arm in suite.arms:
        reader = arm.removeprefix(ARM)
        if arm in {reader, EXACT}:
            continue
        if reader == Grammar.name:
            read = _understood(outcomes(Grammar(), cases))
        else:
            read = _recorded(file, reader, cases, suite.name)
        found[arm] = {
            key: () if refusals(changes, ContractInForce(0, suite.settings.contract)) else changes
            for key, changes in read.items()
        }
    return found


def write_readings(found: Mapping[str, Sequence[Outcome]], file: Path) -> None:
    """Keep what each reader, by name, understood of the texts of a suite."""
    lines = [
        json.dumps({"reader": name, "text": text, "now": now, "changes": [
            each.model_dump(by_alias=True, exclude_none=True) for each in changes
        ]}, ensure_ascii=False)
        for name, read in found.items()
        for (text, now), changes in _understood(read).items()
    ]  # fmt: skip
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _understood(read: Sequence[Outcome]) -> Readings:
    return {
        (each.case.text, each.case.now): each.answer if isinstance(each.answer, tuple) else ()
        for each in read
    }


def _recorded(file: Path, reader: str, cases: Sequence[WordCase], suite: str) -> Readings:
    command = f"hmas eval words --cases evals/suites/{suite}.toml --contender {reader}"
    how = f"`{command} --readings {file}`"
    try:
        lines = [_Line.model_validate_json(line) for line in file.read_text("utf-8").splitlines()]
    except OSError as error:
        raise ChangeError(f"{file}: {error.strerror}, and {ARM}{reader} needs it: {how}") from error
    except ValidationError as error:
        raise ChangeError(f"{file}: {error.errors()[0]['msg']}: make it again: {how}") from error
    read = {(each.text, each.now): each.changes for each in lines if each.reader == reader}
    if missing := [case for case in cases if (case.text, case.now) not in read]:
        raise ChangeError(f"{file}: {reader} has not read {missing[0].text!r}: {how}")
    return read
