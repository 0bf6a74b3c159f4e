"""What does the embedded model, taught operators' words, make of a text?

It maps the marked text to a code (`code.py`), and can write nothing else: decoding is bound to the
codes over the marks of this text. Its confidence is calibrated: by its log-probability, and by
whether the grammar reads the same.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hmas_agents.agents.chat import (
    Answer,
    ModelFault,
    OneAtATime,
    listed_models,
    model_client,
)
from hmas_agents.config import ConfigError, ModelConfig
from hmas_agents.intent.change import ChangeError, Names, canonical, read_answer
from hmas_agents.intent.code import changes_of, pattern
from hmas_agents.intent.endpoint import Endpoint
from hmas_agents.intent.grammar import Grammar
from hmas_agents.intent.marks import mark
from hmas_agents.intent.reading import Reading
from serving.launch.model import TAUGHT

ADAPTER = Path(__file__).parents[1] / "teach" / "adapter"
RESULTS = "results.json"  # in an adapter's folder
_MAX_LETTERS = 600  # the texts that it was taught have at most half of that
_LOOK_S = 2.0  # to see which models are served
_UNCLEAR = {"question": "Whom is it about, and what shall change?"}

Complete = Callable[[str, str], Answer]
"""A prompt and the regular expression that the answer must match, to the answer."""


def prompt_of(marked: str) -> str:
    """What the model is asked: the marked text, which has no line feed, and one line feed."""
    return f"{marked}\n"


@dataclass(frozen=True, slots=True)
class Calibration:
    """How often is such a reply right? A fitted logistic curve.

    Attributes:
        intercept, slope: of the reply's log-probability.
        agreed: added where the grammar reads the same changes: two readers that know nothing of
            each other are seldom wrong alike.
        ask_below: below this share of right replies it asks back.
    """

    intercept: float
    slope: float
    agreed: float
    ask_below: float

    @classmethod
    def of(cls, adapter: Path) -> Self:
        """That of an adapter's folder, as `hmas teach` wrote it.

        Raises:
            ConfigError: it has none that can be used.
        """
        file = adapter / RESULTS
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8"))["calibration"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file}: not of an adapter: {error!r}") from error

    def share_right(self, logprob: float | None, *, agrees: bool) -> float:
        """0 to 1; 0 where the endpoint tells no log-probability."""
        if logprob is None:
            return 0.0
        score = self.intercept + self.slope * logprob + self.agreed * agrees
        return 1 / (1 + math.exp(-max(-700.0, score)))


class TaughtReader:
    """Reads by one completion for each text."""

    name = "taught"

    def __init__(self, complete: Complete, calibration: Calibration) -> None:
        self._complete, self._calibration = complete, calibration

    def read(self, text: str, now: str, names: Names) -> Reading:
        """See Reader. Raises ModelFault where nothing comes back."""
        if len(text) > _MAX_LETTERS:
            return Reading({"question": f"Say it in at most {_MAX_LETTERS} letters."}, 1.0)
        marked = mark(text, names)
        answer = self._complete(prompt_of(marked.text), pattern(marked.values))
        try:
            changes = changes_of(answer.text, marked.values, now)
            said = read_answer(changes or _UNCLEAR, names, now)
        except ChangeError:
            return Reading(_UNCLEAR, 0.0)
        agrees = bool(changes) and _by_grammar(text, now, names) == canonical(said)
        sure = self._calibration.share_right(answer.logprob, agrees=agrees)
        return Reading(changes or _UNCLEAR, sure, self._calibration.ask_below)


def _by_grammar(text: str, now: str, names: Names) -> object:
    try:
        return canonical(read_answer(Grammar().read(text, now, names).reply, names, now))
    except ChangeError:
        return None


def taught_at(config: ModelConfig, token: str = "") -> TaughtReader | None:
    """A reader by the taught model, where this endpoint serves it; None where it does not.

    It is taken for ours by its name: of the folder that vLLM loaded, or the one that it lists.

    Raises:
        ConfigError: it is served, and our adapter's calibration is missing.
    """
    key = os.environ.get(config.api_key_env) or "none"
    client, calls = model_client(config.base_url, key, _LOOK_S), OneAtATime()
    try:
        listed = calls.run(lambda: listed_models(client, _LOOK_S), _LOOK_S)
    except ModelFault:
        return None
    finally:
        calls.close()
        client.close()
    for name, loaded in listed.items():
        if config.name in {"", name} and TAUGHT.name in {Path(name).name, Path(loaded).name}:
            named = config.model_copy(update={"name": name})
            return TaughtReader(Endpoint(named, token).complete, Calibration.of(ADAPTER))
    return None
