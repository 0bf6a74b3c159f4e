"""What traffic is planned for? A suite's first scenario or a trace, at any multiple of its rate.

Loads are columns: a request at a load is a row of the trace and a moment, with no object of its
own, so that a thousand times an hour's traffic fits into memory.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evals.offer import offer
from evals.scenario import build_workload
from evals.suite import Suite, load_profile, load_suite
from evals.workloads import FORMATS
from evals.workloads.scaling import Requests, WorkloadError, clip_lengths, span_s
from evals.workloads.tenants import TenantShare, assign_tenants
from evals.workloads.trace import TraceError
from serving.contracts import SLO
from serving.contracts.settings import EngineSettings
from serving.engines.block_contents import number_blocks
from serving.engines.offered import Workload, columns, track_of
from serving.engines.profile import EngineProfile

SPREAD_S = 60.0  # a copy of the trace begins up to so much later
DEFAULT_PROFILE: str = Suite.model_fields["profile"].default


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests at their own rate, and the machine and contract that they meet."""

    name: str
    requests: Requests
    profile: EngineProfile
    settings: EngineSettings

    @property
    def rate_rps(self) -> float:
        """Requests per second at load 1."""
        return len(self.requests) / span_s(self.requests)


@dataclass(frozen=True, slots=True)
class LoadedTraffic:
    """What is offered at a load.

    Attributes:
        workload: its columns.
        rows: of each, the request of the trace that it is, shape (requests,).
    """

    workload: Workload
    rows: NDArray[np.int64]


def read_traffic(
    path: Path, *, form: str | None, profile: str | None, slo_class: str, seed: int,
    warn: Callable[[str], None],
) -> Traffic:  # fmt: skip
    """A suite's first scenario (`.toml`), or a trace whose requests all have one SLO class.

    Args:
        path: of the file.
        form: of a trace; None: Mooncake's for JSON lines, Azure's for the rest.
        profile: name of the machine; None: the suite's, or the suites' default.
        slo_class: of a trace's requests.
        seed: of what a suite draws.
        warn: gets a line for each thing that the reader of the plan must know.

    Raises:
        SuiteError, TraceError: the file cannot be used; names file, line and key.
        WorkloadError: the class is unknown, or there are too few requests.
    """
    if path.suffix == ".toml":
        suite = load_suite(path)
        machine, spec = load_profile(profile or suite.profile), suite.scenarios[0]
        workload = build_workload(
            spec, seed=seed, max_model_len=_longest(machine), trace_file=None, warn=warn
        )
        rate_rps = len(workload.requests) / span_s(workload.requests)
        name = f"{suite.name}, {spec.name}"
        return Traffic(
            name, offer(workload, rate_rps).requests, machine, suite.settings_of(spec)
        )
    machine, settings = load_profile(profile or DEFAULT_PROFILE), EngineSettings()
    if settings.slo_of(slo_class) is None:
        raise WorkloadError(
            f"--slo-class {slo_class}: known: {', '.join(settings.contract.class_names)}"
        )
    form = form or ("mooncake" if ".jsonl" in path.suffixes else "azure")
    try:
        trace = FORMATS[form](path)
    except TraceError as error:
        hint = f" (read as {form}: see --format)" if path.is_file() else ""
        raise TraceError(f"{error}{hint}") from error
    if trace.malformed:
        warn(f"{len(trace.malformed)} malformed lines left out, the first: {trace.malformed[0]}")
    requests = assign_tenants(trace.requests, [TenantShare("default", slo_class)], seed)
    requests, clipped = clip_lengths(requests, _longest(machine))
    if clipped:
        warn(f"{clipped} requests clipped to {_longest(machine)} tokens")
    span_s(requests)  # raises where there is no rate
    return Traffic(path.name, requests, machine, settings)


def targets_ms(requests: Requests, settings: EngineSettings) -> NDArray[np.float64]:
    """TTFT, TPOT and E2E targets of each request, infinite where it has none: (requests, 3)."""
    known: dict[tuple[str, str, SLO | None], list[float]] = {}
    table = []
    for one in requests:
        key = one.tenant, one.slo_class, one.slo
        if key not in known:
            slo = track_of(0, one, 1, settings).view.slo
            known[key] = [
                math.inf if ms is None else ms for ms in (slo.ttft_ms, slo.tpot_ms, slo.e2e_ms)
            ]
        table.append(known[key])
    return np.array(table)


def at_load(traffic: Traffic, load: float, seed: int) -> LoadedTraffic:
    """The traffic `load` times, on the trace's clock: an hour stays an hour, a peak a peak.

    Above 1 come copies of the trace, each begun up to a minute later (its end comes round to its
    start), so that their bursts do not fall together. Below a whole number of copies each request
    stays with equal chance. Load 1 is the trace itself. Copies share no prompts with each other.
    """
    base = columns(traffic.requests, traffic.profile)
    rng, count, span = np.random.default_rng(seed), len(base), span_s(traffic.requests)
    copies = math.ceil(load)
    later_s = rng.uniform(0.0, min(SPREAD_S, span), copies)
    arrival_s = (base.arrival_s - base.arrival_s[0] + later_s[:, np.newaxis]) % span
    arrival_s[0] = base.arrival_s - base.arrival_s[0]
    flat = arrival_s.ravel()
    kept = np.arange(len(flat))
    if load < copies:
        kept = kept[rng.random(len(flat)) < load / copies]
    kept = kept[np.argsort(flat[kept], kind="stable")]
    copy, rows = np.divmod(kept, count)
    prompt, output = base.prompt_tokens[rows], base.output_tokens[rows]
    contents = None
    if base.contents is not None:
        prefixes = (
            tuple(block * copies + k for block in traffic.requests[row].prefix)
            for k, row in zip(copy.tolist(), rows.tolist(), strict=True)
        )
        contents = number_blocks(prefixes, prompt, output, traffic.profile.block_size)
    workload = Workload(
        flat[kept], prompt, output, base.max_tokens[rows], base.cached_tokens[rows], contents
    )
    return LoadedTraffic(workload, rows)


def _longest(profile: EngineProfile) -> int:
    """Tokens of a request that any replica can serve."""
    return min(profile.max_model_len, (profile.kv_blocks - 1) * profile.block_size)
