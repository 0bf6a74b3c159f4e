"""What is the rate of a list of requests, and how is time stretched to another? Pure functions.

A rate is offered requests over the span between the first and the last arrival, where a list of
requests is all there is; cases have a length of their own (`evals.requests.offer`).
"""

from collections.abc import Sequence
from dataclasses import replace

from serving.contracts import TraceRequest

Requests = tuple[TraceRequest, ...]


class WorkloadError(ValueError):
    """A workload that cannot be run; says what to do."""


def span_s(requests: Sequence[TraceRequest]) -> float:
    """Seconds between the first and the last arrival; the requests are in order.

    Raises:
        WorkloadError: all requests arrive at the same moment, so no rate is defined.
    """
    span = requests[-1].arrival_s - requests[0].arrival_s if requests else 0.0
    if span <= 0:
        raise WorkloadError(
            f"{len(requests)} requests span 0 s, so they have no rate: take more requests"
        )
    return span


def scale_to_rate(requests: Sequence[TraceRequest], rate_rps: float) -> Requests:
    """Stretch or squeeze time so that the mean rate is `rate_rps`; bursts keep their shape."""
    factor = len(requests) / span_s(requests) / rate_rps
    start_s = requests[0].arrival_s
    return tuple(
        replace(request, arrival_s=(request.arrival_s - start_s) * factor) for request in requests
    )
