"""Who reads the cases? The grammar, and a model in several ways: in this process or served."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hmas_agents.intent.endpoint import Endpoint
from hmas_agents.intent.grammar import Grammar
from hmas_agents.intent.model_reader import ModelReader
from hmas_agents.intent.reading import Reader
from hmas_agents.intent.taught_reader import ADAPTER, Calibration, TaughtReader
from prompts.loader import load_prompt
from serving.launch.model import SMOLLM2

if TYPE_CHECKING:  # torch takes seconds
    from hmas_agents.teach.local import LocalModel

GRAMMAR, TAUGHT, FEW_SHOT, ZERO_SHOT = "grammar", "taught", "few-shot", "zero-shot"
ALL = (GRAMMAR, TAUGHT, FEW_SHOT, ZERO_SHOT)
_PROMPTS: Mapping[str, str] = {FEW_SHOT: "current", ZERO_SHOT: "zero-shot"}


def contenders(
    names: Iterable[str], served: Endpoint | None, adapter: Path | None
) -> list[Reader]:
    """The readers of these names, in their order.

    Args:
        names: of `ALL`.
        served: the model to ask; None is the embedded one, in this process.
        adapter: what the taught one has learnt; None is ours.

    Raises:
        TeachError: there is no embedded model, or the adapter is not of it.
        ConfigError: the adapter has no calibration.
    """
    untaught = cache(lambda: served or _embedded())  # one model for all prompts

    def made(name: str) -> Reader:
        if name == GRAMMAR:
            return Grammar()
        if name in _PROMPTS:
            return ModelReader(untaught().chat, load_prompt("intent", _PROMPTS[name]), name)
        learnt = adapter or ADAPTER
        calibration = Calibration.of(learnt)
        return TaughtReader((served or _embedded(learnt)).complete, calibration)

    return [made(name) for name in names]


def _embedded(adapter: Path | None = None) -> "LocalModel":
    """The embedded model in this process, with what it has learnt if that is named."""
    from hmas_agents.teach.local import LocalModel
    from hmas_agents.teach.train import load

    return LocalModel(*load(SMOLLM2)) if adapter is None else LocalModel.taught(SMOLLM2, adapter)
