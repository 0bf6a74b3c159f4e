"""How many requests per second can the engine complete? The unit of `load`.

Simulated: stock vLLM under a steady overload, completions in its second half. By then the batch is
full of requests of every age, as in a run that lasts. What is offered at once begins with a batch
of equally young ones, and ends with one that runs empty.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evals.requests.scaling import WorkloadError
from evals.requests.scenario import LEAST_COMPLETIONS
from serving.contracts import TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from serving.engines.offered import columns
from serving.engines.profile import EngineProfile

OVERLOAD = 2  # times capacity, as far as a first run tells it
# Offered at least, over and over: the half that counts must be long against a single request.
OFFERED = 16_000


def simulated_capacity_rps(
    profile: EngineProfile, settings: EngineSettings, requests: Sequence[TraceRequest]
) -> float:
    """Requests per second that stock FCFS completes when saturated.

    Requests come in their order at regular times: their own bursts are no steady overload.

    Raises:
        WorkloadError: too few requests finished to tell.
    """
    pilot = _finished_s(profile, settings, requests, 0.0)
    low, high = round(0.1 * len(pilot)), round(0.8 * len(pilot))
    if len(pilot) < LEAST_COMPLETIONS or pilot[high] <= pilot[low]:
        raise _too_few(len(pilot))
    gap_s = float(pilot[high] - pilot[low]) / (high - low) / OVERLOAD
    copies = -(-OFFERED // len(requests))
    finished_s = _finished_s(profile, settings, _repeated(requests, copies), gap_s)
    end_s = gap_s * copies * len(requests)
    counted = int(((finished_s > end_s / 2) & (finished_s <= end_s)).sum())
    if counted < LEAST_COMPLETIONS:
        raise _too_few(counted)
    return counted / (end_s / 2)


def _repeated(requests: Sequence[TraceRequest], copies: int) -> list[TraceRequest]:
    """Copies one after the other; they share no prompts, but for those that a copy itself does."""
    return [
        replace(one, prefix=tuple(copy + copies * block for block in one.prefix))
        if one.prefix
        else one
        for copy in range(copies)
        for one in requests
    ]


def _finished_s(
    profile: EngineProfile, settings: EngineSettings, requests: Sequence[TraceRequest],
    gap_s: float,
) -> NDArray[np.float64]:  # fmt: skip
    """When requests end that come every `gap_s` seconds, sorted; until the last one comes."""
    workload = columns(requests, profile)
    workload = replace(workload, arrival_s=gap_s * np.arange(len(requests), dtype=np.float64))
    until_s = gap_s * len(requests) or None
    served = CompiledEngine(profile, settings, stock=True).run_columns(workload, (), until_s)
    return np.sort(served.finished_s[served.finish < 2])


def _too_few(count: int) -> WorkloadError:
    return WorkloadError(f"{count} completed requests are too few to measure capacity: take more")
