"""Which requests does a scenario have? Trace, cut, mix, tenants, lengths, in that order.

The result is the same for every load and arm; `evals.requests.offer` then brings it to a load.
Called for the simulated and the live runner, and by the demo.
"""

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from evals.requests import read_trace
from evals.requests.azure_files import find_azure
from evals.requests.composition import mix_streams
from evals.requests.scaling import Requests, WorkloadError, clip_lengths, scale_lengths
from evals.requests.servegen import Draw
from evals.requests.servegen_files import digest, find_servegen
from evals.requests.stand_in import synthetic_stand_in
from evals.requests.synthetic import SyntheticTenant, synthetic_tenants
from evals.requests.tenants import TenantShare, assign_tenants, shift_tenants
from evals.requests.trace import Trace, TraceError
from evals.suite.suite import DrawSpec, Scenario, Suite
from serving.contracts import TraceRequest

NAMED_LINES = 20
LEAST_COMPLETIONS = 10  # that tell an engine's capacity


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A trace to put in place of the suite's own.

    Attributes:
        path: a file, or a folder of ServeGen's clients.
        format: one of `FORMATS`.
        draw: which requests of ServeGen's clients; None: those of the first day.
    """

    path: Path
    format: str
    draw: Draw | None = None

    @property
    def names_tenants(self) -> bool:
        """Whether it says who sends what; elsewhere the suite's tenants are drawn."""
        return self.format == "servegen"


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests on the trace's clock, and `provenance`: where they come from.

    `spec` is the scenario as in the suite, `seed` what decided tenants and what was drawn.
    """

    scenario: str
    requests: Requests
    provenance: str
    seed: int
    spec: Scenario


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
        seed: decides tenants, everything synthetic, and the rows where `start = "seed"`.
        max_model_len: longest prompt plus output of the engine; longer requests are clipped.
        trace_file: read instead of the scenario's trace.
        warn: gets one line for each thing the reader of the results must know.

    Raises:
        TraceError: the trace cannot be used; names file, line and key.
    """
    if trace_file is None and scenario.trace == "servegen":
        trace_file = _clients(scenario)
    if scenario.trace == "synthetic" and trace_file is None:
        requests, provenance = _synthetic(scenario, seed), "synthetic tenants"
    else:
        requests, provenance = _rows(scenario, seed, trace_file, warn)
        if trace_file is None or not trace_file.names_tenants:
            if not scenario.tenants:
                raise TraceError(f"{scenario.name}: has no tenants to draw onto {provenance}")
            requests = _with_tenants(requests, scenario, seed)
        provenance += f", {len(requests)} used"
        if trace_file is not None:
            warn(f"{scenario.name}: requests from {provenance}")
    # A mix draws which rows it keeps: about as many as asked.
    if len(requests) < scenario.requests * (1.0 if scenario.mix is None else 0.5):
        warn(f"{scenario.name}: {scenario.requests} requests asked, the trace has {len(requests)}")
    requests = scale_lengths(requests, scenario.length_scale)
    requests, clipped = clip_lengths(requests, max_model_len)
    if clipped:
        warn(f"{scenario.name}: {clipped} requests clipped to max_model_len {max_model_len}")
        provenance += f", {clipped} clipped to {max_model_len} tokens"
    return Workload(scenario.name, requests, provenance, seed, scenario)


def build_workloads(
    suite: Suite,
    trace_file: TraceFile | None,
    max_model_len: int,
    warn: Callable[[str], None],
) -> list[Workload]:
    """One workload per scenario and seed, in order; what seeds have in common is warned once."""
    said: set[str] = set()

    def warn_once(line: str) -> None:
        if line not in said:
            said.add(line)
            warn(line)

    workloads = [
        build_workload(
            scenario, seed=seed, max_model_len=max_model_len, trace_file=trace_file, warn=warn_once
        )
        for scenario in suite.scenarios
        for seed in suite.every_seed
    ]
    for workload in workloads:
        if (count := len(workload.requests)) < LEAST_COMPLETIONS:
            raise WorkloadError(
                f"{workload.scenario}: {count} requests from {workload.provenance}: at least "
                f"{LEAST_COMPLETIONS} are needed to measure capacity"
            )
    return workloads


def _clients(scenario: Scenario) -> TraceFile:
    spec = scenario.draw or DrawSpec()
    found = find_servegen(spec.model)
    if found is None:
        raise TraceError(
            f"{scenario.name}: no folder {spec.model} with ServeGen's clients on this machine; "
            "`hmas traces fetch servegen` downloads deepseek-r1; or set HMAS_TRACES to a folder "
            "that has it somewhere below"
        )
    return TraceFile(found, "servegen", Draw(spec.hours, spec.clients, spec.keep))


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


def _with_tenants(rows: Requests, scenario: Scenario, seed: int) -> Requests:
    def assigned(weights: Mapping[str, float]) -> Requests:
        return assign_tenants(
            rows,
            [
                TenantShare(t.name, t.slo_class, weights.get(t.name, t.weight), t.priority)
                for t in scenario.tenants
            ],
            seed,
        )

    if scenario.shares is None:
        return assigned({})
    shift = scenario.shares.shift()
    return shift_tenants(assigned({}), assigned(scenario.shares.weights), shift, seed)


def _rows(
    scenario: Scenario, seed: int, trace_file: TraceFile | None, warn: Callable[[str], None]
) -> tuple[Requests, str]:
    """The scenario's rows of its trace, or of its two traces, and where they come from.

    Raises:
        TraceError: the scenario does something with the suite's tenants, and the trace has others.
    """
    if trace_file is not None and trace_file.names_tenants:
        for key in ("mix", "shares", "flood"):
            if getattr(scenario, key) is not None:
                raise TraceError(
                    f"{scenario.name}: {key}: is about the suite's tenants, but those of "
                    f"{trace_file.path} are its clients"
                )
    rows, provenance = _trace(scenario.name, scenario.trace, seed, trace_file, warn)
    rows = _cut(rows, scenario, seed)
    if scenario.mix is None:
        return rows, provenance
    others, other_provenance = _trace(scenario.name, scenario.mix.trace, seed, None, warn)
    mixed = mix_streams(rows, _cut(others, scenario, seed), scenario.mix.shift(), seed)
    return mixed, f"{provenance}; mixed with {other_provenance}"


def _cut(rows: Requests, scenario: Scenario, seed: int) -> Requests:
    first = 0
    if scenario.start == "seed":
        first = random.Random(f"{seed}:start").randint(0, max(0, len(rows) - scenario.requests))
    return rows[first:][: scenario.requests]


def _trace(
    name: str,
    trace_name: str,
    seed: int,
    trace_file: TraceFile | None,
    warn: Callable[[str], None],
) -> tuple[Requests, str]:
    if trace_file is None:
        found = find_azure(trace_name)
        if found is None:
            provenance = f"synthetic stand-in of {trace_name} (fitted to published statistics)"
            warn(
                f"{name}: trace {trace_name} not found; using the {provenance}. "
                "`hmas traces fetch` downloads it"
            )
            return synthetic_stand_in(trace_name, seed), provenance
        trace_file = TraceFile(found, "azure")
    draws = trace_file.format == "servegen"
    trace, sha256 = _read(trace_file, seed if draws else 0)
    for line in _about_the_file(trace):
        warn(line)
    return trace.requests, (
        f"{trace_file.path.name} ({trace_file.format}, sha256 {sha256[:12]}, "
        f"{len(trace.requests)} usable rows, {len(trace.malformed)} malformed, "
        f"{trace.failed} failed)"
    )


@lru_cache(maxsize=4)
def _read(file: TraceFile, seed: int) -> tuple[Trace, str]:
    """A trace and its SHA-256; kept, because every seed and scenario reads it."""
    trace = read_trace(file.path, file.format, file.draw, seed)
    if file.path.is_dir():
        return trace, digest(file.path)
    return trace, hashlib.sha256(file.path.read_bytes()).hexdigest()


def _about_the_file(trace: Trace) -> list[str]:
    lines = list(trace.malformed[:NAMED_LINES])
    if len(trace.malformed) > NAMED_LINES:
        lines.append(f"... and {len(trace.malformed) - NAMED_LINES} more malformed lines")
    if trace.malformed:
        lines.append(f"{len(trace.malformed)} malformed lines left out")
    lines += trace.notes
    if trace.failed:
        lines.append(f"{trace.failed} failed requests left out")
    if trace.out_of_order:
        lines.append(f"{trace.out_of_order} rows out of order: sorted by arrival")
    return lines
