"""What does an adapter's card say? Everything in it is read from its `results.json`."""

from collections.abc import Mapping
from typing import Any

_CARD = """\
# Operators' words for SmolLM2-135M-Instruct

A LoRA adapter (rank {rank}, alpha {alpha}, bf16) with which the model maps a text of an operator,
names and numbers marked, to a list of typed changes, or `ask`.

- **Asked** by a plain completion: the marked text and a line feed. Decoding has to be bound to the
  codes over the marks of the text, as `TaughtReader` does; free answers are not what it was taught.
- **Data**: {examples:,} texts drawn from {phrasings:,} phrasings, seed {seed};
  {held_out_phrasings} phrasings were held out. No text, name or form of a number is of the test
  half.
- **Command**: `hmas teach --steps {steps} --seed {seed}` ({minutes:.0f} minutes on two CPU cores,
  loss {loss:.4f} per token at the end).
- **Made** on {date} from `{base}` (Apache-2.0) with Python {python}, {versions}.

| judged by | texts | exact | asked | wrong without asking |
|---|---:|---:|---:|---:|
{scores}

Its confidence is the share right among replies of such a log-probability, with or without the
grammar reading the same, fitted to these same texts; below {ask_below:.2f} it asks.

**Limits**: English, and texts of up to 600 letters. It reads operators' words and nothing else:
asked about anything else it answers no better than before, and often worse. Names and numbers are
found by rules before it reads; what they miss, it cannot know.
"""
_ROW = "| {} | {cases} | {exact:.1%} | {asked:.1%} | {wrong_confident:.1%} |"
_JUDGED_BY = {"held_out": "held-out phrasings", "development": "development cases"}


def card(results: Mapping[str, Any]) -> str:
    """The README of an adapter, in Markdown."""
    training = dict(results["training"])
    versions = ", ".join(f"{name} {number}" for name, number in training.pop("versions").items())
    rows = [_ROW.format(_JUDGED_BY[name], **row) for name, row in results["scores"].items()]
    return _CARD.format(
        **training,
        versions=versions,
        examples=training["steps"] * training["batch"],
        ask_below=results["calibration"]["ask_below"],
        scores="\n".join(rows),
    )
