"""Are the steps too large for the decodes in them? Rule agent for the token budget and for pacing.

Where no slack sizes the steps, this agent makes them smaller by measured TPOT misses. Where the
decodes alone make steps too long, it skips steps for decodes that are ahead of their TPOT target.
"""

import math

from hmas_agents.agents.calls import RuleCall, call_for, stepped
from hmas_agents.states import ShortState
from serving.core.decoding import AHEAD, PREFILL_FLOOR

MISS_HIGH = 0.10
MISS_LOW = 0.02

CROWDED = 0.8  # of the decodes that fit a step: with fewer running none would skip
FEWEST_REQUESTS = 20  # in the window; of fewer, shares say little
LOOSER = 1.2  # times what a target is worth that is being kept: what it takes to give it up


def propose(state: ShortState) -> list[RuleCall]:
    """The size of steps, then which decodes take part in them; see the two functions."""
    return token_budget(state) + decode_pacing(state)


def token_budget(state: ShortState) -> list[RuleCall]:
    """Shrink the budget by a quarter on TPOT misses, grow it back by a quarter when clean.

    With m the share of finished requests that missed TPOT, B the budget and B_max the
    envelope:

    - m > 0.10, prefill in the batch, decodes without slack, and steps not sized by it:
      B <- max(0.75 B, decodes + 1, B_max / 4);
    - m < 0.02 and slack not negative: B <- min(1.25 B, B_max).

    Between 0.02 and 0.10 nothing moves (hysteresis). Without prefill in the batch a
    smaller budget could not help, so nothing moves either: multiplicative decrease
    only where it acts (after AIMD: Chiu and Jain, Computer Networks 17, 1989). Under `follow_slack`
    no step is longer than the decodes that can be on time allow. A lower ceiling then only delays
    prompts: up to a point of attainment on a machine too slow for its tightest target.
    """
    misses, slack_s = state.tpot_miss_share, state.decode_slack_p10_s
    budget = state.limits.token_budget
    if misses is None:
        return []
    short_of_slack = slack_s is not None and slack_s < 0
    sized = state.limits.follow_slack
    if misses > MISS_HIGH and state.prefilling > 0 and short_of_slack and not sized:
        decodes = math.ceil(state.decoding / state.ranks)  # the budget is each rank's
        wanted = max(stepped("token_budget", -1, state), min(decodes + 1, budget))
        reason = f"TPOT misses {misses:.0%} and decodes behind: smaller steps"
    elif misses < MISS_LOW and not short_of_slack:
        wanted = stepped("token_budget", 1, state)
        reason = f"TPOT misses {misses:.0%}: larger steps again"
    else:
        return []
    if wanted == budget:
        return []
    return [call_for("token_budget", wanted, state, reason)]


def decode_pacing(state: ShortState) -> list[RuleCall]:
    """Each decode at its own pace (`serving.core.pacing`), where a tight one is worth short steps.

    Short steps cost: the time b of an empty step is paid more often. With s the seconds that
    one decode adds at the batch's mean context, phi the part of the decodes' time that prefill
    always gets and alpha how far ahead steps aim (`serving.core.decoding`), n decodes take
    T(n) = (1 + phi)(b + n s), and n(tau) = ((1 - alpha) tau / (1 + phi) - b) / s of them fit a step
    that keeps a TPOT target tau. A target is worth

        share of recent requests promised tau or longer * n(tau) / T(n(tau)),

    tokens per second that would be on time. The target worth most is to be kept, so that a few
    requests with a tight target do not shorten all steps. The formula is this project's. With R
    running (per rank) and A_max the most that may:

    - n(tau) < A_max of the target worth most, and R > 0.8 n(tau): on;
    - n(tau) = A_max of it, or R < n(tau) / 2: off. While pacing is on, a longer target, or
      none, must be worth a fifth more.

    Of several tokens a step (speculative decoding) nothing is known here: n(tau) is then lower
    than need be. Without `follow_slack` steps are as long as prompts make them: off. So where fewer
    than 20 requests came lately: of ten, all may have the tight target that few share.
    """
    on, most = state.limits.pace_decodes, state.max_active_requests
    running = math.ceil(state.running / state.ranks)
    known = sum(state.requests_by_tenant.values()) >= FEWEST_REQUESTS
    fits = in_pace(state) if state.limits.follow_slack and known else most
    if not on and fits < most and running > CROWDED * fits:
        reason = f"{fits} decodes fit a step at the pace worth most, {running} run: they take turns"
    elif on and (fits == most or 2 * running < fits):
        reason = f"{running} run, and {fits} decodes fit a step: none has to skip it"
    else:
        return []
    return [call_for("pace_decodes", not on, state, reason)]


def in_pace(state: ShortState) -> int:
    """The n(tau) of `decode_pacing`; the most there may be where no target binds."""
    most, best, promised = state.max_active_requests, 0.0, 1.0
    chosen = most
    for tau_s, share in (*state.tpot_targets, (math.inf, 0.0)):
        step_s = (1.0 - AHEAD) * tau_s / (1.0 + PREFILL_FLOOR)
        fits = most
        if state.decode_s > 0.0 and step_s < state.step_base_s + most * state.decode_s:
            fits = max(0, int((step_s - state.step_base_s) / state.decode_s))
        taken_s = state.step_base_s + fits * state.decode_s
        pays = promised * fits / taken_s if taken_s > 0.0 else promised
        if pays > (LOOSER if state.limits.pace_decodes else 1.0) * best:
            best, chosen = pays, fits
        promised -= share
    return chosen
