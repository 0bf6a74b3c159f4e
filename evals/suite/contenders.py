"""What is each arm, in one line? The one table of all arms but `fixed-NAME`.

`evals.suite.arms` reads names, `evals.arms` runs them by their kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["stock", "sglang", "fixed", "switching", "loop", "hindsight", "clairvoyant"]
STOCK, HMAS = "vllm-fcfs", "hmas"
EXACT, IN_ADVANCE = "words-exact", "in-advance"
TOLD = ("words-grammar", "words-taught", EXACT, IN_ADVANCE)


@dataclass(frozen=True, slots=True)
class Contender:
    """What an arm of `ARMS` is."""

    kind: Kind  # which function of `evals.arms` runs it
    about: str  # one line for readers
    same_as: str = ""  # the `fixed-NAME` that it is another name of
    tuned: bool = False  # it reads what `hmas eval tune` found
    configured: bool = False  # it goes by the controller's configuration
    # Of that configuration, by dotted keys.
    overrides: Mapping[str, object] = field(default_factory=dict)
    live: bool = False  # it can be run on a server
    reference: bool = False  # it knows what nobody knows in time, so no operator can run it

    @property
    def baseline(self) -> bool:
        """Whether it is another's scheduling, and no part of H-MAS."""
        return self.kind in ("stock", "sglang") or bool(self.same_as)


def _loop(about: str, live: bool = False, **overrides: object) -> Contender:
    keys = {name.replace("__", "."): value for name, value in overrides.items()}
    return Contender("loop", about, configured=True, overrides=keys, live=live)


# In the order in which tables show them. `hmas` asks a model only where a model's URL or a
# cassette is given.
ARMS: dict[str, Contender] = {
    STOCK: Contender("stock", "stock vLLM at its defaults", live=True),
    "vllm-tuned": Contender(
        "stock", "stock vLLM; token budget, batch and admission tuned jointly", tuned=True
    ),
    "vllm-priority-deadline": Contender(
        "stock", "stock vLLM's priority scheduling; the priority is when the first token is due"
    ),
    "sglang-emulated": Contender("sglang", "SGLang's default scheduling, emulated"),
    "sglang-mixed": Contender("sglang", "the same with --enable-mixed-chunk"),
    # QoServe (2503.22562): deadline plus alpha times remaining work, hopeless requests last.
    "qoserve": Contender(
        "fixed", "QoServe's order: deadline plus remaining work", "fixed-edf:kappa=10", live=True
    ),
    # VTC (2401.00588): input tokens weigh 1, output tokens 2, as in `serving.core.tenants`.
    "vtc": Contender("fixed", "VTC's order: fair shares of tokens", "fixed-fair", live=True),
    # SSJF (2404.08509): shortest predicted job first, by the mean of the prediction.
    "ssjf": Contender(
        "fixed", "SSJF's order: shortest predicted job first", "fixed-srpt:rho=0", live=True
    ),
    "start": Contender("fixed", "what H-MAS starts with, and no agents", configured=True),
    "oracle-lengths": Contender(
        "fixed", "the same, or an order by length, told how long each answer will be",
        configured=True, reference=True,
    ),
    "best-fixed": Contender(
        "fixed", "the best fixed arm of the development half", tuned=True
    ),
    "random-switching": Contender(
        "switching", "a policy drawn at random at each long tick", configured=True
    ),
    "threshold": Contender(
        "switching", "two fixed arms and a threshold on one state", tuned=True, configured=True
    ),
    "tree": Contender(
        "switching", "a decision tree over fixed arms", tuned=True, configured=True
    ),
    "rules-only": _loop("H-MAS without twin and model", model__enabled=False, twin__enabled=False),
    "twin-only": _loop(
        "H-MAS without anybody's proposals", model__enabled=False, control__use_rule_table=False
    ),
    "rules-and-twin": _loop("H-MAS without a model", model__enabled=False),
    HMAS: _loop("H-MAS", live=True),
    "hmas-announced": _loop("H-MAS, told beforehand when traffic changes"),
    "words-grammar": _loop("H-MAS, told in words that a grammar reads"),
    "words-taught": _loop("H-MAS, told in words that the taught model has read"),
    EXACT: _loop("H-MAS, told in words that are understood as they are meant"),
    IN_ADVANCE: _loop("H-MAS, and what the words mean done by hand beforehand"),
    "hmas-advise": _loop("H-MAS, deciding and writing nothing", True, control__mode="advise"),
    "hindsight-fixed": Contender(
        "hindsight", "the best fixed arm on the very requests", reference=True
    ),
    "hindsight-switching": Contender(
        "hindsight", "greedy switching among the best three, knowing what comes",
        configured=True, reference=True,
    ),
    "clairvoyant": Contender(
        "clairvoyant", "the best that a search finds, knowing arrivals and lengths",
        configured=True, reference=True,
    ),
}  # fmt: skip
