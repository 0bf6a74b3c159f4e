"""Who reads the cases? The grammar, and a model in several ways: in this process or served."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from hmas_agents.intent.endpoint import Endpoint
from hmas_agents.intent.grammar import Grammar
from hmas_agents.intent.model_reader import ModelReader
from hmas_agents.intent.reading import Reader
from hmas_agents.intent.taught_reader import ADAPTER, Calibration, TaughtReader
from prompts.loader import load_prompt
from serving.launch.model import SMOLLM2

GRAMMAR, TAUGHT, FEW_SHOT, ZERO_SHOT = "grammar", "taught", "few-shot", "zero-shot"
ALL = (GRAMMAR, TAUGHT, FEW_SHOT, ZERO_SHOT)
_PROMPTS: Mapping[str, str] = {FEW_SHOT: "current", ZERO_SHOT: "zero-shot"}


@contextmanager
def contenders(
    names: Iterable[str], served: Endpoint | None, adapter: Path | None
) -> Iterator[list[Reader]]:
    """The readers of these names, in their order.

    Args:
        names: of `ALL`.
        served: the model to ask; None is the embedded one, in this process.
        adapter: what the taught one has learnt; None is ours.

    Raises:
        TeachError: there is no embedded model, or the adapter is not of it.
        ConfigError: the adapter has no calibration.
    """
    with TemporaryDirectory() as scratch:
        made: Mapping[str, Callable[[], Reader]] = {
            GRAMMAR: Grammar,
            TAUGHT: partial(_taught, served, adapter or ADAPTER, Path(scratch)),
            **{name: partial(_shot, served, name) for name in _PROMPTS},
        }
        yield [made[name]() for name in names]


def _taught(served: Endpoint | None, adapter: Path, scratch: Path) -> Reader:
    calibration = Calibration.of(adapter)
    if served is not None:
        return TaughtReader(served.complete, calibration)
    from hmas_agents.teach.adapter import merge_adapter
    from hmas_agents.teach.local import LocalModel
    from hmas_agents.teach.train import load

    merged = scratch / "merged"
    merge_adapter(SMOLLM2, adapter, merged)
    return TaughtReader(LocalModel(*load(merged)).complete, calibration)


def _shot(served: Endpoint | None, name: str) -> Reader:
    prompt = load_prompt("intent", _PROMPTS[name])
    if served is not None:
        return ModelReader(served.chat, prompt, name)
    from hmas_agents.teach.local import LocalModel
    from hmas_agents.teach.train import load

    return ModelReader(LocalModel(*load(SMOLLM2)).chat, prompt, name)
