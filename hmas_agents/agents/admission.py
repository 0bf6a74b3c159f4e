"""Is too much let in? Rule agent for concurrency, and for refusing what may be refused."""

import math

from hmas_agents.agents.calls import RuleCall
from hmas_agents.states import ShortState
from serving.step_limits import AHEAD, PREFILL_FLOOR

ACTIVE, SHED = "set_max_active_requests", "set_shed_share"

FLOOR_SHARE = 0.125
CROWDED = 0.8  # of what fits: below it a limit would bind nobody
LESS, MORE = 0.9, 1.15  # a limit that is off by less is left alone
LOOSER = 1.2  # times what a target is worth that is being kept: what it takes to give it up

PROTECTED_LOW = 0.90
PROTECTED_HIGH = 0.98
MISSING_HIGH = 0.10
MISSING_LOW = 0.02
IN_VAIN_HIGH = 0.5
FEWEST_WAITING = 4  # sheddable ones; of fewer, a share says little
SHED_STEP = 0.25


def propose(state: ShortState) -> list[RuleCall]:
    """Concurrency, then shedding; see the two functions."""
    return active_requests(state) + shed_share(state)


def active_requests(state: ShortState) -> list[RuleCall]:
    """No more at once than keep the pace that most requests are promised.

    Slack keeps prompts from holding up decodes; nothing keeps decodes from holding up each
    other. With b the seconds of an empty step, s those that one decode adds at the batch's mean
    context, phi the part of the decodes' time that prefill always gets and alpha how far ahead
    steps aim (`serving.step_limits`), n requests take T(n) = (1 + phi)(b + n s) a step, and
    n(tau) = ((1 - alpha) tau / (1 + phi) - b) / s of them keep a TPOT target tau. A target is
    worth

        share of recent requests promised tau or longer * n(tau) / T(n(tau)),

    tokens per second of those that would be on time: the target worth most is kept, so that a few
    with a tight one do not throttle the others. While A is below A_max a longer one, or none, must
    be worth a fifth more. The formula is this project's.

    - A <- n(tau), at least A_max / 8: that is below 0.9 A and R, running, is above 0.8 n(tau);
    - A <- n(tau), at most A_max, if that is above 1.15 A; A_max while R < n(tau) / 2.

    R and A are per rank. Of several tokens a step (speculative decoding) nothing is known here:
    n(tau) is then lower than need be. Without `follow_slack` steps are as long as prompts make
    them, and with `pace_decodes` the engine keeps the paces itself: nothing moves but back up.
    """
    limit, most = state.limits.max_active_requests, state.max_active_requests
    running = math.ceil(state.running / state.ranks)
    bounds = state.limits.follow_slack and not state.limits.pace_decodes
    fits = in_pace(state) if bounds else most
    wanted = min(max(fits, int(most * FLOOR_SHARE), 1), most)
    if 2 * running < wanted:
        wanted = most
    if wanted < LESS * limit and running > CROWDED * wanted:
        reason = f"{wanted} at once keep the pace that most are promised: fewer"
    elif wanted > MORE * limit or limit < wanted == most:
        reason = f"{wanted} at once keep the pace: more again"
    else:
        return []
    return [{"name": ACTIVE, "args": {"max_requests": wanted, "reason": reason}}]


def in_pace(state: ShortState) -> int:
    """The n(tau) of `active_requests`; the most there may be where no target binds."""
    most, best, promised = state.max_active_requests, 0.0, 1.0
    chosen, limited = most, state.limits.max_active_requests < most
    for tau_s, share in (*state.tpot_targets, (math.inf, 0.0)):
        step_s = (1.0 - AHEAD) * tau_s / (1.0 + PREFILL_FLOOR)
        fits = most
        if state.decode_s > 0.0 and step_s < state.step_base_s + most * state.decode_s:
            fits = max(0, int((step_s - state.step_base_s) / state.decode_s))
        taken_s = state.step_base_s + fits * state.decode_s
        pays = promised * fits / taken_s if taken_s > 0.0 else promised
        if pays > (LOOSER if limited else 1.0) * best:
            best, chosen = pays, fits
        promised -= share
    return chosen


def shed_share(state: ShortState) -> list[RuleCall]:
    """Refuse sheddable requests by quarters while they wait in vain and others miss.

    With A the lowest attainment of a class that may not be refused, n the sheddable
    requests waiting, v those of them that wait in vain (past the deadline; or, without
    one, longer than `serving.shedding.OVERDUE_S`) over n and those served in time lately,
    and u the same of the other classes:

    - A < 0.90 or u > 0.1, and v > 0.5 and n >= 4: share <- min(share + 0.25, 1): who would
      be served too late, or not, is told at once and leaves queue and batch to the others;
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
        wanted = min(share + SHED_STEP, 1.0)
        reason = f"{in_vain:.0%} of sheddable ones wait in vain, and {others:.0%} of the others"
    elif state.waiting == 0 or clean:
        wanted, reason = max(share - SHED_STEP, 0.0), "there is room again: refuse fewer"
    else:
        return []
    if wanted == share:
        return []
    return [{"name": SHED, "args": {"share": wanted, "reason": reason}}]


def protected_attainment(state: ShortState) -> float | None:
    """The lowest attainment of a class that may not be refused; None without any yet."""
    kept = [
        attained
        for name, attained in state.attainment_by_class.items()
        if name not in state.sheddable
    ]
    return min(kept, default=None)
