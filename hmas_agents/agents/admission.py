"""Is more let in than can be served in time? Rule agent for refusing what may be refused."""

from hmas_agents.agents.calls import RuleCall, call_for, stepped
from hmas_agents.states import ShortState

PROTECTED_LOW = 0.90
PROTECTED_HIGH = 0.98
MISSING_HIGH = 0.10
MISSING_LOW = 0.02
IN_VAIN_HIGH = 0.5
FEWEST_WAITING = 4  # sheddable ones; of fewer, a share says little


def propose(state: ShortState) -> list[RuleCall]:
    """Refuse sheddable requests by quarters while they wait in vain and others miss.

    With A the lowest attainment of a class that may not be refused, n the sheddable
    requests waiting, v = (sheddable requests that wait in vain: past the deadline, or, without
    one, longer than `serving.hook.shedding.OVERDUE_S`) / (n + sheddable requests served in time
    lately), and u the same of the other classes:

    - A < 0.90 or u > 0.1, and v > 0.5 and n >= 4: share <- min(share + 0.25, 1): a client that
      would be served too late is told at once, and leaves queue and batch to the others;
    - A > 0.98 and u < 0.02, or nothing waits: share <- max(share - 0.25, 0).

    Between the two nothing moves (hysteresis). Which classes may be refused is the
    server's configuration; where it names none, nothing is. A refused request is a miss:
    simulated in two minutes of overload, under `fcfs` attainment of the others went from
    0.17 to 0.43 and of all from 0.20 to 0.37; under `edf`, which gives up the hopeless
    anyway, that of the others from 0.53 to 0.79 and of all from 0.55 to 0.50. After the
    overload controls that shed the lowest class first (DAGOR, arXiv 1806.04075).
    """
    if not state.sheddable:
        return []
    share, attained = state.limits.shed, protected_attainment(state)
    others, in_vain = state.in_vain_share, state.sheddable_in_vain_share
    misses = others > MISSING_HIGH or (attained is not None and attained < PROTECTED_LOW)
    clean = others < MISSING_LOW and attained is not None and attained > PROTECTED_HIGH
    if misses and in_vain > IN_VAIN_HIGH and state.sheddable_waiting >= FEWEST_WAITING:
        wanted = stepped("shed", 1, state)
        reason = f"{in_vain:.0%} of sheddable ones wait in vain, and {others:.0%} of the others"
    elif state.waiting == 0 or clean:
        wanted, reason = stepped("shed", -1, state), "there is room again: refuse fewer"
    else:
        return []
    if wanted == share:
        return []
    return [call_for("shed", wanted, state, reason)]


def protected_attainment(state: ShortState) -> float | None:
    """The lowest attainment of a class that may not be refused; None without any yet."""
    kept = [
        attained
        for name, attained in state.attainment_by_class.items()
        if name not in state.sheddable
    ]
    return min(kept, default=None)
