"""What is wanted in a case, and what is said of it to each arm? From the scenario's words, by seed.

Called by `evals.sim.suite_run`. What is wanted weighs the goodput of all arms, told or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from evals.arms.case import Said
from evals.requests.offer import Workload
from evals.suite.contenders import EXACT, IN_ADVANCE
from evals.suite.words_spec import Readings, WordsSpec
from hmas_agents.intent.acting import contract_with
from hmas_agents.intent.change import Change
from hmas_agents.intent.told import ToldChange
from serving.contracts import Contract


@dataclass(frozen=True, slots=True)
class Episode:
    """One workload's words, under the contract that holds without them."""

    workload: Workload
    contract: Contract

    def said(self, arm: str, readings: Readings | None) -> tuple[Said, ...]:
        """What an arm is told, and what it understands of it.

        Args:
            arm: `in-advance` knows all from the start, `words-exact` what is meant.
            readings: of every text, of an arm that goes by them.
        """
        span, said = self.workload.span, list[Said]()
        for words in self.workload.spec.words:
            text, at_s = words.text(self.workload.half, self.workload.seed), words.said_s(span)
            if arm == IN_ADVANCE:
                said.append(Said(0.0, text, self._timed(words, words.means, words.since_s(span))))
            elif arm == EXACT:
                said.append(Said(at_s, text, self._timed(words, words.means, at_s)))
            elif readings is not None:
                read = readings[text, words.now]
                said.append(Said(at_s, text, self._timed(words, read, at_s)))
        return tuple(said)

    def wanted(self) -> tuple[tuple[float, Contract], ...]:
        """From when on the contract is which."""
        changes = [
            each
            for words in self.workload.spec.words
            for each in self._timed(words, words.weights, words.since_s(self.workload.span))
        ]
        edges_s = {0.0, *(one.from_s for one in changes)}
        edges_s |= {one.until_s for one in changes if one.until_s is not None}
        return tuple(
            (at_s, contract_with(self.contract, (o.change for o in changes if o.holds(at_s))))
            for at_s in sorted(edges_s)
        )

    def named(self) -> tuple[tuple[str | None, str | None], ...]:
        """Tenant and SLO class of everything that is meant."""
        meant = (each for words in self.workload.spec.words for each in words.means)
        return tuple(dict.fromkeys((each.tenant, each.slo_class) for each in meant))

    def _timed(
        self, words: WordsSpec, changes: Sequence[Change], now_s: float
    ) -> tuple[ToldChange, ...]:
        """On the clock of the case; what has no beginning begins at `now_s`."""
        said_s = words.said_s(self.workload.span)
        return tuple(
            ToldChange(0, number, change, *change.window_s(words.now, said_s, now_s))
            for number, change in enumerate(changes)
        )
