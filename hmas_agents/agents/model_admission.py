"""Does a model read the situation, or does it name what is listed first?

An admission test: labelled cases, each asked with its options in rotated order. The result
is kept in a file beside the ledger, per model and prompt, and read by the long horizon,
which marks the decisions that a failed model was asked for. Whoever proposed it, a policy
goes live only on the twin's word; the mark says what the model's own word is worth.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hmas_agents.agents.policy_agent import PolicyReply
from hmas_agents.config import ModelConfig
from prompts.loader import Message, Prompt, sha256

FILE = "model_admission.json"  # in the ledger's folder

Ask = Callable[[list[Message], tuple[str, ...]], PolicyReply]


class AdmissionError(RuntimeError):
    """Results of admission tests that cannot be read or kept; names the file."""


@dataclass(frozen=True, slots=True)
class ExamCase:
    """A situation, and what would be right.

    Attributes:
        messages: what is sent when the options are listed in the order given.
        best: the policies of `allowed` that count as right.
    """

    messages: Callable[[tuple[str, ...]], list[Message]]
    allowed: tuple[str, ...]
    best: frozenset[str]


@dataclass(frozen=True, slots=True)
class Admission:
    """How a model did.

    Attributes:
        accuracy: share of all replies whose first proposal is right; none is wrong.
        steadiness: mean over the cases of the share of their replies that gave the case's
            most frequent answer; 1 when the order of the options never mattered.
        least_accuracy, least_steadiness: what was asked for at the time.
    """

    model: str
    prompt_sha256: str
    cases: int
    accuracy: float
    steadiness: float
    least_accuracy: float
    least_steadiness: float

    @property
    def passed(self) -> bool:
        """Whether both were reached, over at least one case."""
        enough = self.accuracy >= self.least_accuracy and self.steadiness >= self.least_steadiness
        return self.cases > 0 and enough

    @property
    def fault(self) -> str:
        """The mark on decisions with a model that failed; empty for one that passed."""
        if self.passed:
            return ""
        return (
            f"model_not_admitted: accuracy {self.accuracy:.2f} (least {self.least_accuracy:g}), "
            f"steadiness {self.steadiness:.2f} (least {self.least_steadiness:g})"
        )


def examine(ask: Ask, cases: Iterable[ExamCase], prompt: Prompt, config: ModelConfig) -> Admission:
    """Ask every case in `admission_rotations` orders of its options, evenly rotated."""
    right = asked = 0
    steady, model = [], config.name
    for case in cases:
        answers = Counter[str]()
        orders = rotations(case.allowed, config.admission_rotations)
        for order in orders:
            reply = ask(case.messages(order), order)
            model = reply.model or model
            asked += 1
            if reply.proposals:
                answers[reply.proposals[0].policy] += 1
        right += sum(count for policy, count in answers.items() if policy in case.best)
        steady.append(max(answers.values(), default=0) / len(orders))
    return Admission(
        model=model,
        prompt_sha256=prompt_sha256(prompt),
        cases=len(steady),
        accuracy=right / asked if asked else 0.0,
        steadiness=sum(steady) / len(steady) if steady else 0.0,
        least_accuracy=config.admission_accuracy,
        least_steadiness=config.admission_steadiness,
    )


def rotations(options: tuple[str, ...], count: int) -> list[tuple[str, ...]]:
    """At most `count` different rotations of the options, evenly apart, the given order first."""
    number = min(count, len(options))
    starts = [len(options) * i // number for i in range(number)]
    return [options[start:] + options[:start] for start in starts]


def prompt_sha256(prompt: Prompt) -> str:
    """SHA-256 of a version of a prompt before anything is filled in."""
    return sha256([{"system": prompt.system, "user": prompt.user}])


def keep(path: Path, admission: Admission) -> None:
    """Put a result into the file; an earlier one of the same model and prompt goes.

    Raises:
        AdmissionError: the file cannot be read or written.
    """
    kept = {(a.model, a.prompt_sha256): a for a in _read(path)}
    kept[admission.model, admission.prompt_sha256] = admission
    rows = [asdict(a) for a in kept.values()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise AdmissionError(f"{path}: cannot be written: {error}") from error


def find(path: Path, model: str, prompt: Prompt) -> Admission | None:
    """The result of this model with this version of the prompt; None when it was not tested.

    Raises:
        AdmissionError: there is a file, and it cannot be read.
    """
    wanted = (model, prompt_sha256(prompt))
    return next((a for a in _read(path) if (a.model, a.prompt_sha256) == wanted), None)


def _read(path: Path) -> list[Admission]:
    try:
        return TypeAdapter(list[Admission]).validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        detail = str(error).splitlines()[0]
        raise AdmissionError(f"{path}: {detail}; delete it and test the model again") from error
