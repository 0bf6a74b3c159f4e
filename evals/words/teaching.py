"""How is an adapter made and judged? By held-out phrasings and the development cases."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from evals.result.metrics import rounded
from evals.sim.freed_memory import keep_freed_memory
from evals.words.calibration import calibrated
from evals.words.word_cases import WordCase, read_word_cases
from evals.words.word_scores import Outcome, outcomes, score
from hmas_agents.agents.chat import Answer
from hmas_agents.intent.change import canonical
from hmas_agents.intent.grammar import Grammar
from hmas_agents.intent.taught_reader import RESULTS, Calibration, Complete, TaughtReader
from hmas_agents.teach.adapter import CARD, save_adapter
from hmas_agents.teach.card import card
from hmas_agents.teach.examples import Example, Examples
from hmas_agents.teach.phrasings import Phrasing, read_phrasings
from hmas_agents.teach.train import ALPHA, BATCH, RANK, Step, load, train, with_adapter

_FOR_ALL = Calibration(0.0, 0.0, 0.0, 0.0)  # never asks by itself
_NEVER_TAUGHT = 1_000_003  # seed of held-out examples: another than any training's
PACKAGES = ("torch", "transformers", "peft", "xgrammar")


def train_adapter(
    base: Path, out: Path, steps: int, seed: int, on_step: Callable[[Step], None]
) -> None:
    """Train an adapter and write it to `out`, with a `results.json` that says how.

    Args:
        base: folder of the model.
        out: folder of the adapter, which appears at the end.
        steps: batches.
        seed: of texts and weights.
        on_step: told after each of them.

    Raises:
        TeachError, PhrasingError: something is missing or cannot be read.
    """
    began_s = monotonic()
    keep_freed_memory()
    phrasings = read_phrasings()
    taught = [each for each in phrasings if not each.is_held_out]
    model, tokenizer = load(base, torch.bfloat16)
    model = with_adapter(model, seed)
    losses: list[float] = []

    def noted(step: Step) -> None:
        losses.append(step.loss)
        on_step(step)

    train(model, tokenizer, Examples(taught, seed), steps, noted)
    save_adapter(model, out)
    training = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "base": base.name,
        "steps": steps, "batch": BATCH, "seed": seed, "rank": RANK, "alpha": ALPHA,
        "phrasings": len(taught), "held_out_phrasings": len(phrasings) - len(taught),
        "loss": sum(losses[-20:]) / len(losses[-20:]),
        "minutes": (monotonic() - began_s) / 60,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }  # fmt: skip
    write_results(out, {"training": training})


def judge_adapter(
    base: Path, adapter: Path, development: Path, on_case: Callable[[int, int], None]
) -> dict[str, Any]:
    """Ask the merged model, and add scores, calibration and card to an adapter's folder.

    Args:
        base: folder of the model.
        adapter: a folder of `train_adapter`.
        development: the cases, JSONL.
        on_case: told how many texts of how many were asked.

    Raises:
        TeachError, PhrasingError, ChangeError: something is missing or cannot be read.
    """
    from hmas_agents.teach.local import LocalModel

    held_out = held_out_cases([each for each in read_phrasings() if each.is_held_out])
    cases = held_out + read_word_cases(development)
    calibration, found = judge(LocalModel.taught(base, adapter).complete, cases, on_case)
    results: dict[str, Any] = json.loads((adapter / RESULTS).read_text(encoding="utf-8")) | {
        "calibration": asdict(calibration),
        "scores": {
            "held_out": asdict(score("held_out", found[: len(held_out)])),
            "development": asdict(score("development", found[len(held_out) :])),
        },
    }
    write_results(adapter, results)
    (adapter / CARD).write_text(card(results), encoding="utf-8")
    return results


def write_results(adapter: Path, results: Mapping[str, Any]) -> None:
    """Write the `results.json` of an adapter, rounded."""
    text = json.dumps(rounded(results), indent=1)
    (adapter / RESULTS).write_text(text + "\n", encoding="utf-8")


def held_out_cases(phrasings: Sequence[Phrasing]) -> list[WordCase]:
    """One text of each phrasing that was not taught."""
    examples = Examples(phrasings, _NEVER_TAUGHT)
    return [_case(examples.plain(each)) for each in phrasings]


def judge(
    complete: Complete, cases: Sequence[WordCase], on_case: Callable[[int, int], None]
) -> tuple[Calibration, list[Outcome]]:
    """What confidence is worth, and what the reader makes of each case with it."""
    answers: list[Answer] = []

    def noted(prompt: str, regex: str) -> Answer:
        answers.append(complete(prompt, regex))
        on_case(len(answers), len(cases))
        return answers[-1]

    raw = outcomes(TaughtReader(noted, _FOR_ALL), cases)
    logprobs = [answer.logprob or 0.0 for answer in answers]
    by_grammar = outcomes(Grammar(), cases)
    calibration = calibrated(
        logprobs,
        [_is_same(each, other) for each, other in zip(raw, by_grammar, strict=True)],
        [each.is_exact for each in raw],
        [each.is_asked for each in raw],
    )
    said = iter(answers)
    again = outcomes(TaughtReader(lambda *_: next(said), calibration), cases)
    timed = [
        Outcome(each.case, each.answer, first.latency_s, each.fault)
        for each, first in zip(again, raw, strict=True)
    ]
    return calibration, timed


def _is_same(one: Outcome, other: Outcome) -> bool:
    """Both read the same changes."""
    if not (isinstance(one.answer, tuple) and isinstance(other.answer, tuple)):
        return False
    return canonical(one.answer) == canonical(other.answer)


def _case(example: Example) -> WordCase:
    return WordCase(example.text, example.now, example.names, example.answer)
