"""Who chooses a policy in a case, and what do they choose?

Rules, chance, the twin, fixed policies, and a model with a version of the prompt. Called by
`evals.agent.scoring`; a model is asked with its options in several orders.
"""

from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from statistics import fmean

from evals.arms.cassette import Cassette
from hmas_agents import rule_table
from hmas_agents.agents.asking import messages_for
from hmas_agents.agents.policy_agent import PolicyAgent, PolicyReply
from hmas_agents.case_file import Candidate, Case, is_candidate
from hmas_agents.config import ModelConfig
from hmas_agents.records import Proposal
from prompts.loader import Prompt
from serving.policies import parse_policy


@dataclass(frozen=True, slots=True)
class Asked:
    """One question to a model, and what came of it."""

    options: tuple[str, ...]  # the policies in the order in which they were listed
    choice: Candidate | None  # the first usable proposal; None when there was none
    reason: str  # the model's, for it
    faults: tuple[str, ...]
    latency_s: float | None  # None where the reply was played from a cassette
    tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a contender makes of one case: choices of equal weight, and how it came to them."""

    case: Case
    choices: tuple[Candidate, ...]
    asked: tuple[Asked, ...] = ()


Contender = Callable[[Case], Answer]


def by_rules(case: Case) -> Proposal:
    """The rule table's proposal; where that is not allowed, no change."""
    proposal = rule_table.choose(case.situation.state)
    if proposal.policy in case.allowed:
        return proposal
    policy, params = case.incumbent
    return Proposal("rules", policy, params, f"{proposal.policy} is not allowed: stay")


def rules(case: Case) -> Answer:
    """The rule table's choice."""
    proposal = by_rules(case)
    return Answer(case, ((proposal.policy, dict(proposal.params)),))


def stay(case: Case) -> Answer:
    """What is in force."""
    return Answer(case, (case.incumbent,))


def chance(case: Case) -> Answer:
    """Any allowed policy: the expectation, nothing is drawn."""
    return Answer(case, tuple((policy, {}) for policy in case.allowed))


def twin(case: Case) -> Answer:
    """The best of other futures than the labels'; of equal ones the first."""
    best = max(case.twin, key=lambda key: fmean(case.twin[key]))
    return Answer(case, (parse_policy(best),))


def fixed(candidate: str) -> Contender:
    """Always the same policy, with the same parameters."""
    return lambda case: Answer(case, (parse_policy(candidate),))


class Model:
    """A model with one version of the prompt, its options in `rotations` different orders.

    The first order is that of the case. Up to `at_once` cases may be asked about at a time, from
    as many threads; with a cassette replies come from it, or are recorded.
    """

    def __init__(
        self,
        config: ModelConfig,
        prompt: Prompt,
        rotations: int,
        cassette: Cassette | None = None,
        at_once: int = 1,
    ) -> None:
        self.url = config.base_url
        self._prompt, self._rotations = prompt, rotations
        self._is_timed = cassette is None
        self._cassette = cassette
        self._is_closed = False
        self._agents = [PolicyAgent(config, prompt) for _ in range(at_once)]
        self._idle: SimpleQueue[PolicyAgent] = SimpleQueue()  # an agent asks one thing at a time
        for agent in self._agents:
            if cassette is not None:
                agent.reach_through(cassette)
            self._idle.put(agent)

    def __call__(self, case: Case) -> Answer:
        """Ask once per order.

        Where a reply is of no use the rule table's choice stands in, as in the control loop.

        Raises:
            CassetteError: a reply is not in the cassette, or could not be recorded.
        """
        agent = self._idle.get()
        try:
            orders = rotated(case, self._rotations)
            asked = tuple(self._ask(agent, case, each) for each in orders if not self._is_closed)
        finally:
            self._idle.put(agent)
        (fallback,) = rules(case).choices
        return Answer(case, tuple(each.choice or fallback for each in asked), asked)

    def close(self) -> None:
        """Close the connections; whoever is asking asks nothing more."""
        self._is_closed = True
        for agent in self._agents:
            agent.close()

    def _ask(self, agent: PolicyAgent, case: Case, options: tuple[str, ...]) -> Asked:
        messages = messages_for(self._prompt, case.situation.state, options)
        reply = agent.propose(messages, options)
        if self._cassette is not None:
            self._cassette.check()
        proposal = _first_usable(reply)
        return Asked(
            options=options,
            choice=None if proposal is None else (proposal.policy, dict(proposal.params)),
            reason="" if proposal is None else proposal.reason,
            faults=tuple(reply.faults),
            latency_s=reply.latency_s if self._is_timed else None,
            tokens=reply.tokens,
        )


def rotated(case: Case, count: int) -> list[tuple[str, ...]]:
    """The allowed policies in `count` orders, each a rotation, evenly spaced.

    At most as many as there are policies; the first is the case's own order.
    """
    names = case.allowed
    count = min(count, len(names))
    starts = [round(i * len(names) / count) for i in range(count)]
    return [names[start:] + names[:start] for start in starts]


def _first_usable(reply: PolicyReply) -> Proposal | None:
    """The model's best proposal whose parameters are inside their bounds."""
    usable = (each for each in reply.proposals if is_candidate(each.policy, each.params))
    return next(usable, None)
