"""May this proposal go live? Checks that no model and no rule can talk its way around.

Called by the long horizon on every proposal before the twin sees it.
"""

from collections.abc import Sequence

from hmas_agents.config import ControlConfig
from hmas_agents.records import Proposal
from hmas_agents.states import LongState
from serving.policies import POLICIES, complete_params

OK = "ok"
HOUR_S = 3600.0
DWELL_CAP_S = 120.0  # in overload the slowest are those that nobody waits for any more
COVERAGE_TARGET = 0.9  # of the predictor's q90
COVERAGE_TOLERANCE = 0.1


def permit(
    proposal: Proposal, state: LongState, control: ControlConfig, switched_at_s: Sequence[float]
) -> str:
    """`ok`, or `CHECK: what is wrong`; the first check that fails speaks.

    `switched_at_s` are the engine times of the switches so far, oldest first. New
    parameters for the policy in force count as a switch.
    """
    name = proposal.policy
    if name not in control.allow_policies:
        return f"allow-list: {name!r} is not allowed by control.allow_policies"
    try:
        complete_params(name, proposal.params)
    except ValueError as error:
        return f"bounds: {error}"
    coverage = state.length_coverage
    if POLICIES[name].needs_lengths and (
        coverage is None or abs(coverage - COVERAGE_TARGET) > COVERAGE_TOLERANCE
    ):
        return f"predictor: {name} needs answer lengths, and their q90 covers {coverage}"
    dwell_s = min_dwell_s(state, control)
    if switched_at_s and state.now_s - switched_at_s[-1] < dwell_s:
        return f"dwell: {state.now_s - switched_at_s[-1]:.0f} s of {dwell_s:.0f} s"
    recent = sum(1 for at_s in switched_at_s if state.now_s - at_s < HOUR_S)
    if recent >= control.max_switches_per_hour:
        most = control.max_switches_per_hour
        return f"change rate: {recent} switches in the last hour, at most {most} allowed"
    return OK


def min_dwell_s(state: LongState, control: ControlConfig) -> float:
    """Shortest stay with a policy: its effect is seen once requests have passed through.

    max(min_dwell_s, 3 x p95 of end-to-end times), the latter capped at 120 s. While a drift
    alarm holds only min_dwell_s: what is to be seen belongs to traffic that is no more.
    """
    if state.alarms:
        return control.min_dwell_s
    return max(control.min_dwell_s, min(3 * (state.e2e_p95_s or 0.0), DWELL_CAP_S))
