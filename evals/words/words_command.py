"""How is `hmas eval words` shown? A table, or JSON."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmas_agents.commands.options import JsonOption, ModelOption, ModelUrlOption, read_config

if TYPE_CHECKING:
    from evals.report.sheet import Sheet
    from evals.words.word_scores import Outcome, WordScore

DEVELOPMENT = Path("evals/cases/words_dev.jsonl")


def words(
    *,
    cases: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Texts and what they mean: a case per line, or a suite (.toml)."
        ),
    ] = DEVELOPMENT,
    contender: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Who reads them, once for each: grammar, taught, few-shot or "
            "zero-shot. By default grammar with taught, or with few-shot of --model-url.",
        ),
    ] = None,
    model_url: ModelUrlOption = None,
    model: ModelOption = None,
    adapter: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="What the taught one has learnt; by default ours."),
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

    hmas eval words --contender grammar --misses

    hmas eval words --contender few-shot --contender zero-shot         the same model, untaught

    hmas eval words --model-url http://127.0.0.1:8000/v1               another one

    hmas eval words --cases evals/cases/words_test.jsonl --json

    hmas eval words --cases evals/suites/words.toml                    the texts of a suite

    The model is the embedded one in this process, or one that is served (--model-url).
    zero-shot is told the vocabulary, few-shot has four examples, too, taught has learnt it by
    `hmas teach`.

    exact: the changes of the case and no others, or a question where the case wants one. valid:
    replies that fit the contract. asked: questions back. wrong: changes that were not meant.
    """
    from dataclasses import asdict
    from functools import partial

    from evals.progress import progress_bar
    from evals.report.sheet import show
    from evals.result.metrics import rounded
    from evals.suite.suite import load_suite
    from evals.words.contenders import ALL, FEW_SHOT, GRAMMAR, TAUGHT, contenders
    from evals.words.readings import texts_of, write_readings
    from evals.words.word_cases import read_word_cases
    from evals.words.word_scores import outcomes, score
    from hmas_agents.intent.endpoint import Endpoint
    from serving.contracts.near_names import choices
    from serving.launch.model import SMOLLM2, is_complete

    is_served = model_url is not None or model is not None
    chosen = tuple(contender or (GRAMMAR, FEW_SHOT if is_served else TAUGHT))
    if not (contender or is_served or is_complete(SMOLLM2)):
        chosen = (GRAMMAR,)
        typer.echo("without the taught model, which `make model` brings", err=True)
    if unknown := [name for name in chosen if name not in ALL]:
        raise typer.BadParameter(f"--contender {unknown[0]}: {choices(unknown[0], ALL)}")
    if adapter is not None and TAUGHT not in chosen:
        raise typer.BadParameter("--adapter: goes with --contender taught")
    is_suite = cases.suffix == ".toml"
    known = texts_of(load_suite(cases)) if is_suite else read_word_cases(cases)
    asked = read_config(None, {"model.base_url": model_url, "model.name": model}).model
    served = Endpoint(asked) if is_served else None
    readers = contenders(chosen, served, adapter)
    with progress_bar() as bar:
        read = {
            each.name: outcomes(each, known, partial(bar, f"{each.name} reads")) for each in readers
        }
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
