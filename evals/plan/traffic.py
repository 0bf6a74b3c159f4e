"""What traffic is planned for? A suite's first scenario or a trace, at any multiple of its rate.

Traffic and loads are columns, with no object for a request: a day of a million requests, or a
thousand times an hour's traffic, fits into memory.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evals.machines.profile_file import load_profile, machine_of
from evals.requests.columns import RequestColumns
from evals.requests.readers import read_trace
from evals.requests.rows import times, with_tenants
from evals.requests.scenario import TraceFile, build_workload
from evals.requests.servegen import draw_requests
from evals.requests.trace import WorkloadError
from evals.suite.suite import DEFAULT_PROFILE, load_suite
from evals.suite.traffic_spec import TenantSpec
from serving.contracts import SLO
from serving.contracts.settings import EngineSettings
from serving.engines.block_contents import number_blocks
from serving.engines.offered import Workload
from serving.engines.profile import EngineProfile


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests at their own rate, and the machine and contract that they meet."""

    name: str  # where they come from
    columns: RequestColumns  # the requests, the first at 0 s
    # profile, settings: of the engine.
    profile: EngineProfile
    settings: EngineSettings

    @property
    def span_s(self) -> float:
        """Seconds from the first arrival to the last."""
        arrivals = self.columns.arrival_s
        return float(arrivals[-1] - arrivals[0])


def read_traffic(
    file: TraceFile, *, profile: str | None, slo_class: str, seed: int,
    warn: Callable[[str], None],
) -> Traffic:  # fmt: skip
    """A suite's first scenario (`.toml`), or a trace.

    Without a profile it is the suite's first, or the suites' default; `slo_class` is of all
    requests of a trace that names no tenants.

    Raises:
        SuiteError, TraceError: the file cannot be used; names file, line and key.
        WorkloadError: the class is unknown, or there are too few requests.
    """
    if file.path.suffix == ".toml":
        suite = load_suite(file.path)
        machine, spec = machine_of(suite, profile), suite.scenarios[0]
        one_seed = suite.model_copy(update={"seeds": (seed,)})
        workload = build_workload(one_seed, spec, seed, longest_tokens(machine), None, warn)
        name, columns = f"{suite.name}, {spec.name}", workload.at_factor(1.0)
        return _begun(name, columns, machine, workload.settings(suite.settings))
    machine, settings = load_profile(profile or DEFAULT_PROFILE), EngineSettings()
    if file.names_tenants:
        drawn = draw_requests(file.path, file.draw, seed)
        columns, malformed = drawn.columns, drawn.malformed
        for note in drawn.notes:
            warn(note)
    else:
        if settings.slo_of(slo_class) is None:
            known = ", ".join(settings.contract.class_names)
            raise WorkloadError(f"--slo-class {slo_class}: known: {known}")
        trace = read_trace(file.path, file.format)
        rows, malformed = RequestColumns.of(trace.requests), trace.malformed
        columns = with_tenants(rows, [TenantSpec(name="default", slo_class=slo_class)], seed)
    if malformed:
        warn(f"{len(malformed)} malformed lines left out, the first: {malformed[0]}")
    columns, clipped = columns.clipped(longest_tokens(machine))
    if clipped:
        warn(f"{clipped} requests clipped to {longest_tokens(machine)} tokens")
    return _begun(file.path.name, columns, machine, settings)


def _begun(
    name: str, columns: RequestColumns, machine: EngineProfile, settings: EngineSettings
) -> Traffic:
    """Requests from 0 s on; only those that have a rate.

    Raises:
        WorkloadError: they have none.
    """
    if not len(columns) or columns.arrival_s[-1] <= columns.arrival_s[0]:
        raise WorkloadError(
            f"{name}: {len(columns)} requests span 0 s, so they have no rate: take more requests"
        )
    at_zero = replace(columns, arrival_s=columns.arrival_s - columns.arrival_s[0])
    return Traffic(name, at_zero, machine, settings)


def targets_ms(slos: Sequence[SLO]) -> NDArray[np.float64]:
    """TTFT, TPOT and E2E targets of each sender, infinite where it has none: (senders, 3)."""
    return np.array(
        [
            [math.inf if ms is None else ms for ms in (slo.ttft_ms, slo.tpot_ms, slo.e2e_ms)]
            for slo in slos
        ]
    )


def at_load(traffic: Traffic, load: float, seed: int) -> Workload:
    """The traffic `load` times, on its own clock: an hour stays an hour, a peak a peak."""
    rng = np.random.default_rng(seed)
    sent = times(traffic.columns, traffic.span_s, load, rng)
    contents = None
    if traffic.profile.prefix_caching:
        prefixes = sent.prefixes or [()] * len(sent)
        contents = number_blocks(
            prefixes, sent.prompt_tokens, sent.output_tokens, traffic.profile.block_size
        )
    return Workload(
        sent.arrival_s, sent.prompt_tokens, sent.output_tokens,
        np.full(len(sent), sent.output_tokens.max()), np.zeros(len(sent), np.int32),
        sent.sender, sent.senders, contents,
    )  # fmt: skip


def longest_tokens(profile: EngineProfile) -> int:
    """Tokens of a request that any replica can serve."""
    return min(profile.max_model_len, (profile.kv_blocks - 1) * profile.block_size)
