"""How is `hmas eval words` shown? A table, or JSON."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmas_agents.commands.options import JsonOption

if TYPE_CHECKING:
    from evals.report.sheet import Sheet
    from evals.words.word_scores import Outcome, WordScore

DEVELOPMENT = Path("evals/cases/words_dev.jsonl")


def words(
    *,
    cases: Annotated[
        Path, typer.Option(metavar="FILE.jsonl", help="Texts and what they mean, a case per line.")
    ] = DEVELOPMENT,
    ask_below: Annotated[
        float, typer.Option(min=0, max=1, help="Ask back below this confidence.")
    ] = 0.5,
    misses: Annotated[
        bool, typer.Option("--misses", help="Print every case that was not read exactly.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """How well are operators' words understood? Each contender reads every case.

    hmas eval words

    hmas eval words --misses

    hmas eval words --cases evals/cases/words_test.jsonl --json

    exact: the changes of the case and no others, or a question where the case wants one. valid:
    replies that fit the contract. asked: questions back. wrong: changes that were not meant.
    """
    from dataclasses import asdict

    from evals.report.sheet import show
    from evals.result.metrics import rounded
    from evals.words.word_cases import read_word_cases
    from evals.words.word_scores import outcomes, score
    from hmas_agents.intent.grammar import Grammar

    known = read_word_cases(cases)
    read = {reader.name: outcomes(reader, known, ask_below) for reader in (Grammar(),)}
    scores = [score(name, found) for name, found in read.items()]
    told = [
        f"{name}: {_miss(each)}"
        for name, found in read.items()
        for each in found
        if misses and not each.is_exact
    ]
    document = {"contenders": [rounded(asdict(each)) for each in scores]}
    show(document, json_output, *_sheets(scores, cases), *told)


def _sheets(scores: "list[WordScore]", cases: Path) -> "list[Sheet]":
    from evals.report.sheet import Sheet

    rows, right = [], []
    for each in scores:
        shares = (each.exact, each.valid, each.asked, each.wrong_confident)
        times = [f"{1000 * each.latency_s[key]:.1f} ms" for key in ("p50", "p99")]
        rows.append([each.name, *(f"{share:.1%}" for share in shares), *times])
        fields = each.by_field.values()
        right.append([each.name, *("-" if share is None else f"{share:.0%}" for share in fields)])
    title = f"{scores[0].cases} cases of {cases}"
    columns = ("contender", "exact", "valid", "asked", "wrong", "p50", "p99")
    note = "Of the cases that have the field, or are to be asked back about."
    return [
        Sheet(title, columns, rows),
        Sheet("right, field by field", ("contender", *scores[0].by_field), right, note),
    ]


def _miss(outcome: "Outcome") -> str:
    """A case that was not read exactly, in three lines."""
    from hmas_agents.intent.change import canonical

    case, answer = outcome.case, outcome.answer
    told = outcome.fault if answer is None else canonical(answer)
    means, read = (text.replace("\n", " ") for text in (canonical(case.expected), told))
    return f"{case.now} {case.text}\n  means {means}\n  read  {read}"
