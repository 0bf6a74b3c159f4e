"""How is `hmas eval words` shown? A table, or JSON."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmas_agents.commands.options import JsonOption, ModelOption, ModelUrlOption, read_config

if TYPE_CHECKING:
    from evals.report.sheet import Sheet
    from evals.words.word_scores import Outcome, WordScore
    from hmas_agents.intent.reading import Reader

DEVELOPMENT = Path("evals/cases/words_dev.jsonl")


def words(
    *,
    cases: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Texts and what they mean: a case per line, or a suite (.toml)."
        ),
    ] = DEVELOPMENT,
    model_url: ModelUrlOption = None,
    model: ModelOption = None,
    taught: Annotated[
        bool, typer.Option("--taught", help="The model is the embedded one, taught by hmas teach.")
    ] = False,
    adapter: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="--taught: whose confidence counts; by default ours."),
    ] = None,
    readings: Annotated[
        Path | None,
        typer.Option(help="Keep what was read, for the arms of `hmas eval run` that need it."),
    ] = None,
    misses: Annotated[
        bool, typer.Option("--misses", help="Print every case that was not read exactly.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """How well are operators' words understood? Each contender reads every case.

    hmas eval words

    hmas eval words --misses

    hmas eval words --model-url http://127.0.0.1:8000/v1          a model, too

    hmas eval words --taught --model-url http://127.0.0.1:8000/v1

    hmas eval words --cases evals/cases/words_test.jsonl --json

    hmas eval words --cases evals/suites/words.toml               the texts of a suite

    exact: the changes of the case and no others, or a question where the case wants one. valid:
    replies that fit the contract. asked: questions back. wrong: changes that were not meant.
    """
    from dataclasses import asdict

    from evals.report.sheet import show
    from evals.result.metrics import rounded
    from evals.suite.suite import load_suite
    from evals.words.readings import texts_of, write_readings
    from evals.words.word_cases import read_word_cases
    from evals.words.word_scores import outcomes, score
    from hmas_agents.intent.grammar import Grammar
    from hmas_agents.intent.model_reader import ModelReader
    from hmas_agents.intent.taught_reader import ADAPTER, Calibration, ServedModel, TaughtReader
    from prompts.loader import load_prompt

    if adapter is not None and not taught:
        raise typer.BadParameter("--adapter: goes with --taught")
    is_suite = cases.suffix == ".toml"
    known = texts_of(load_suite(cases)) if is_suite else read_word_cases(cases)
    readers: list[Reader] = [Grammar()]
    asked = read_config(None, {"model.base_url": model_url, "model.name": model}).model
    if taught:
        readers.append(TaughtReader(ServedModel(asked), Calibration.of(adapter or ADAPTER)))
    elif model_url is not None or model is not None:
        readers.append(ModelReader(asked, load_prompt("intent", "current")))
    read = {reader.name: outcomes(reader, known) for reader in readers}
    if readings is not None:
        write_readings(read, readings)
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
