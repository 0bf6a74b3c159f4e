"""Which requests does a scenario offer? Trace, cut, lengths, tenants, in that order.

The result is the same for every load and arm; a load then only stretches time.
Called by the simulated and the live runner.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evals.suite import Scenario
from evals.workloads import FORMATS
from evals.workloads.azure_files import find_azure
from evals.workloads.scaling import clip_lengths, scale_lengths, truncate
from evals.workloads.synthetic import SyntheticTenant, synthetic_tenants
from evals.workloads.tenants import TenantShare, assign_tenants
from evals.workloads.trace import Trace
from evals.workloads.twin import synthetic_twin
from serving.contracts import TraceRequest

NAMED_LINES = 5


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A trace to put in place of the suite's own."""

    path: Path
    format: str


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests on the trace's clock, and `provenance`: where they come from."""

    scenario: str
    requests: tuple[TraceRequest, ...]
    provenance: str


def build_workload(
    scenario: Scenario,
    *,
    seed: int,
    max_model_len: int,
    trace_file: TraceFile | None,
    warn: Callable[[str], None],
) -> Workload:
    """The requests of a scenario.

    Args:
        scenario: from the suite.
        seed: decides tenants and everything synthetic.
        max_model_len: longest prompt plus output of the engine; longer requests are clipped.
        trace_file: read instead of the scenario's trace.
        warn: gets one line for each thing the reader of the results must know.

    Raises:
        TraceError: the trace cannot be used; names file, line and key.
    """
    if scenario.trace == "synthetic" and trace_file is None:
        requests, provenance = _synthetic(scenario, seed), "synthetic tenants"
    else:
        rows, provenance = _trace(scenario, seed, trace_file, warn)
        shares = [
            TenantShare(tenant.name, tenant.slo_class, tenant.weight, tenant.priority)
            for tenant in scenario.tenants
        ]
        requests = assign_tenants(truncate(rows, scenario.requests), shares, seed)
    if len(requests) < scenario.requests:
        warn(f"{scenario.name}: {scenario.requests} requests asked, the trace has {len(requests)}")
    requests = scale_lengths(requests, scenario.length_scale)
    requests, clipped = clip_lengths(requests, max_model_len)
    if clipped:
        warn(f"{scenario.name}: {clipped} requests clipped to max_model_len {max_model_len}")
        provenance += f", {clipped} clipped to {max_model_len} tokens"
    return Workload(scenario.name, requests, provenance)


def _synthetic(scenario: Scenario, seed: int) -> tuple[TraceRequest, ...]:
    tenants = [
        SyntheticTenant(
            name=tenant.name,
            slo_class=tenant.slo_class,
            rate_rps=tenant.traffic.rate_rps,
            prompt=tenant.traffic.prompt.lengths(),
            output=tenant.traffic.output.lengths(),
            arrival_cv=tenant.traffic.arrival_cv,
            priority=tenant.priority,
        )
        for tenant in scenario.tenants
        if tenant.traffic is not None
    ]
    return synthetic_tenants(tenants, scenario.requests, seed)


def _trace(
    scenario: Scenario, seed: int, trace_file: TraceFile | None, warn: Callable[[str], None]
) -> tuple[tuple[TraceRequest, ...], str]:
    if trace_file is None:
        found = find_azure(scenario.trace)
        if found is None:
            provenance = f"synthetic twin of {scenario.trace} (fitted to published statistics)"
            warn(
                f"{scenario.name}: trace {scenario.trace} not found; using the {provenance}. "
                "`hmas traces fetch` downloads it"
            )
            return synthetic_twin(scenario.trace, seed), provenance
        trace_file = TraceFile(found, "azure")
    trace = FORMATS[trace_file.format](trace_file.path)
    for line in _malformed_lines(trace):
        warn(line)
    digest = hashlib.sha256(trace_file.path.read_bytes()).hexdigest()[:12]
    return trace.requests, (
        f"{trace_file.path.name} ({trace_file.format}, sha256 {digest}, "
        f"{len(trace.requests)} rows, {len(trace.malformed)} malformed, {trace.failed} failed)"
    )


def _malformed_lines(trace: Trace) -> list[str]:
    lines = list(trace.malformed[:NAMED_LINES])
    if len(trace.malformed) > NAMED_LINES:
        lines.append(f"... and {len(trace.malformed) - NAMED_LINES} more malformed lines")
    if trace.malformed:
        lines.append(f"{len(trace.malformed)} malformed lines left out")
    if trace.failed:
        lines.append(f"{trace.failed} failed requests left out")
    return lines
