"""How does a suite say what operators want, when they say so, and in which words?

Read as part of a suite (`evals.suite.suite`); `evals.sim.episodes` makes of it what a case needs.
"""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from evals.suite.shapes import Span
from evals.suite.traffic_spec import Half, Share, SuiteModel
from hmas_agents.intent.acting import refusals
from hmas_agents.intent.change import MAX_CHANGES, Change, Clock, Names, problems_of
from serving.contracts import Contract, ContractInForce

Readings = Mapping[tuple[str, str], tuple[Change, ...]]  # what is understood, by text and `now`
Meant = Annotated[tuple[Change, ...], Field(max_length=MAX_CHANGES)]


class WordsSpec(SuiteModel):
    """`[[scenarios.words]]`: something is wanted, and somebody says so.

    Times of the day in texts count from `now`, so that they fit one length of the case only.
    """

    at: Share = Field(description="When it is said, as a share of the counted time.")
    since: Share | None = Field(None, description="Since when it is so; unset: since `at`.")
    now: Clock = Field(description="What clocks show when it is said.")
    texts: Annotated[tuple[str, ...], Field(min_length=2)] = Field(
        description="Ways to say it: of one half the first, third, ..., of the other the rest."
    )
    means: Meant = Field(min_length=1, description="What each of them means.")
    wanted: Meant | None = Field(
        None, description="The weights that are wanted then; unset: those of `means`."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.since is not None and self.since > self.at:
            raise ValueError("since must not be after at: nobody says what is not yet so")
        if any(each.kind != "weight" for each in self.wanted or ()):
            raise ValueError("wanted: goodput is weighed by weights, and by nothing else")
        return self

    @property
    def weights(self) -> tuple[Change, ...]:
        """What goodput is weighed by while it holds."""
        meant = self.means if self.wanted is None else self.wanted
        return tuple(each for each in meant if each.kind == "weight")

    def said_s(self, span: Span) -> float:
        """When it is said, on the clock of a case."""
        return span.warmup_s + self.at * span.counted_s

    def since_s(self, span: Span) -> float:
        """Since when it is so, on the clock of a case."""
        return span.warmup_s + (self.at if self.since is None else self.since) * span.counted_s

    def text(self, half: Half, seed: int) -> str:
        """How it is said under a seed; nothing is said alike in both halves."""
        texts = self.texts if half == "any" else self.texts[half == "test" :: 2]
        return texts[seed % len(texts)]

    def problems(self, contract: Contract) -> list[str]:
        """Why it cannot be meant under a contract; empty where it can."""
        meant = *self.means, *self.weights
        names, held = Names.of(contract), ContractInForce(0, contract)
        return problems_of(self.means, names, self.now) or refusals(meant, held)
