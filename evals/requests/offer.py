"""What does a workload offer at a given rate, and when does its traffic change?

Load first (time stretched, or thinned), then the flood, then the drift of the rate, then
bursts. The same for every arm, so that arms are compared on the same arrivals. Called by the
runners.
"""

from dataclasses import dataclass

from evals.requests.composition import flooded, thinned_to_rate
from evals.requests.drift import burst_starts_s, bursty_clock, shifted_clock
from evals.requests.scaling import Requests, scale_to_rate, span_s
from evals.requests.scenario import Workload


@dataclass(frozen=True, slots=True)
class Offered:
    """Requests on the clock of the load, from 0 s on, and the seconds at which traffic changes."""

    requests: Requests
    moments_s: tuple[float, ...] = ()


def offer(workload: Workload, rate_rps: float) -> Offered:
    """The requests of a workload where nothing drifts at `rate_rps`.

    A burst, a flood or a shift of the rate changes the rate from there; the mean is in the
    results as `offered_rps`.

    Raises:
        WorkloadError: the workload has no rate.
    """
    spec = workload.spec
    if spec.load_by == "time":
        requests = scale_to_rate(workload.requests, rate_rps)
    else:
        requests = thinned_to_rate(workload.requests, rate_rps, workload.seed)
    length_s = span_s(requests)
    moments_s: list[float] = []
    for drift in (spec.mix, spec.shares):
        if drift is not None:
            moments_s += [share * length_s for share in drift.shift().flips]
    if spec.flood is not None:
        window_s = (spec.flood.start * length_s, spec.flood.end * length_s)
        requests = flooded(
            requests, spec.flood.tenant, spec.flood.factor, window_s, workload.seed
        )
        moments_s += window_s
    if spec.rate is not None:
        shift = spec.rate.shift()
        clock = shifted_clock(length_s, shift, spec.rate.to)
        requests, length_s = clock.move(requests), float(clock.drifting_s[-1])
        moments_s = clock.at(moments_s) + [share * length_s for share in shift.flips]
    if spec.burst is not None:
        shape = (spec.burst.factor, spec.burst.for_s, spec.burst.every_s, spec.burst.first_s)
        clock = bursty_clock(length_s, *shape)
        requests = clock.move(requests)
        moments_s = clock.at(moments_s) + burst_starts_s(length_s, *shape)
    return Offered(requests, tuple(sorted(set(moments_s))))
