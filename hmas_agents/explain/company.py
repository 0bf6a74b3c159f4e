"""Which requests did a request wait for, which did it overtake, and which overtook it?

Pure functions over the outcomes of one run; called by `hmas why`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hmas_agents.explain.life import admitted_s
from serving.contracts import Outcome

# Admissions of one step are one moment: a Unix time in a float resolves 0.2 microseconds,
# and the admission is the sum of two.
SAME_MOMENT_S = 1e-5
SHOWN_IDS = 3


@dataclass(frozen=True, slots=True)
class Crowd:
    """Some requests: how many, their prompt tokens, per tenant, and the first few by id."""

    requests: int
    prompt_tokens: int
    by_tenant: dict[str, int]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Company:
    """Who was there while a request waited.

    Attributes:
        running: in the batch when it came.
        ahead: waiting when it came, and admitted before it or with it.
        overtaken_by: came after it, and were admitted before it.
        overtook: came before it, and were still waiting when it was admitted.
    """

    running: Crowd
    ahead: Crowd
    overtaken_by: Crowd
    overtook: Crowd


def overtook(a: Outcome, b: Outcome) -> bool:
    """Whether `a` came after `b`, and was admitted while `b` still waited for the first time."""
    admitted_a, admitted_b = admitted_s(a), admitted_s(b)
    if admitted_a is None or a.arrival_s <= b.arrival_s:
        return False
    # A request that was never admitted waited until it left.
    waited_until_s = b.finished_s if admitted_b is None else admitted_b
    return waited_until_s > admitted_a + SAME_MOMENT_S


def company(outcome: Outcome, others: Iterable[Outcome]) -> Company:
    """Who was there while `outcome` waited; it may itself be among `others`."""
    came_s = outcome.arrival_s
    admitted = admitted_s(outcome)
    gone_s = outcome.finished_s if admitted is None else admitted
    running, ahead, passed, passing = [], list[Outcome](), list[Outcome](), list[Outcome]()
    for other in others:
        if other.request_id == outcome.request_id and other.seq == outcome.seq:
            continue
        other_s = admitted_s(other)
        if overtook(outcome, other):
            passed.append(other)
        elif overtook(other, outcome):
            passing.append(other)
        elif other_s is None or other.arrival_s > came_s:
            continue
        elif other_s <= came_s:
            running += [other] * (other.finished_s > came_s)
        elif other_s <= gone_s + SAME_MOMENT_S:
            ahead.append(other)
    return Company(crowd(running), crowd(ahead), crowd(passing), crowd(passed))


def crowd(members: Sequence[Outcome]) -> Crowd:
    """These requests, counted; the ids are of the first to arrive."""
    first = sorted(members, key=lambda o: (o.arrival_s, o.seq))[:SHOWN_IDS]
    tenants = Counter(o.tenant for o in members)
    return Crowd(
        len(members),
        sum(o.prompt_tokens for o in members),
        dict(sorted(tenants.items(), key=lambda item: (-item[1], item[0]))),
        tuple(o.request_id for o in first),
    )
