"""Had a request missed its SLO already? Asked of forecasts and of what really came.

A decision can do nothing for such a request, so it counts in neither.
"""

from serving.contracts import SLO


def first_token_is_late(
    slo: SLO, arrival_s: float, first_token_s: float | None, now_s: float
) -> bool:
    """Whether, at `now_s`, the first token came or is coming too late for the target."""
    if slo.ttft_ms is None:
        return False
    if first_token_s is None or first_token_s > now_s:
        first_token_s = now_s
    return first_token_s - arrival_s > slo.ttft_ms / 1000
