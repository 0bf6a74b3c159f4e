"""Who sends in a scenario? Clients, tenants or rows of a trace, of one block of one half.

The result is the same for every load and arm; `evals.requests.offer` then brings it to a load.
Called for the simulated and the live runner, and by the demo.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from evals.requests.azure_files import find_azure
from evals.requests.blocks import block_start_s, half_of
from evals.requests.columns import RequestColumns
from evals.requests.offer import Workload
from evals.requests.readers import read_trace
from evals.requests.rows import Rows, with_tenants
from evals.requests.sending import Sender, Stream, Stretch
from evals.requests.servegen import WEIGHTS, Model
from evals.requests.servegen_files import digest, find_servegen
from evals.requests.sessions import Sessions
from evals.requests.trace import Trace, TraceError, WorkloadError
from evals.suite.suite import Scenario, Suite
from evals.suite.traffic_spec import DrawSpec, TenantSpec
from serving.contracts import TraceRequest

NAMED_LINES = 20
WHOLE = DrawSpec()
LEAST_COMPLETIONS = 10  # that tell an engine's capacity

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A trace to put in place of the suite's own."""

    path: Path  # a file, or a folder of ServeGen's clients
    format: str  # one of `FORMATS`, or servegen
    draw: DrawSpec = WHOLE  # which of ServeGen's clients

    @property
    def names_tenants(self) -> bool:
        """Whether it says who sends what; elsewhere the suite's tenants are drawn."""
        return self.format == "servegen"


def build_workload(
    suite: Suite, scenario: Scenario, seed: int, max_model_len: int,
    trace_file: TraceFile | None = None, warn: Warn = lambda _: None,
) -> Workload:  # fmt: skip
    """Who sends in a scenario of a suite; the seed decides the block, and what is drawn.

    `max_model_len` is the engine's: longer requests are clipped. `trace_file` is read instead of
    the scenario's trace; `warn` gets a line for each thing the reader of the results must know.

    Raises:
        TraceError: the trace cannot be used; names file, line and key.
        WorkloadError: the half has not so many blocks.
    """
    workload = Workload(
        scenario.name, scenario, suite.half, seed, "", (), suite.span(scenario), max_model_len,
        (), "",
    )  # fmt: skip
    seeds = max(suite.every_seed) + 1
    if trace_file is None and scenario.trace == "synthetic":
        senders: tuple[Sender, ...] = tuple(
            _synthetic(tenant, workload.span.until_s) for tenant in scenario.tenants
        )
        return replace(workload, senders=senders, provenance="synthetic tenants")
    if trace_file is None:
        trace_file = _file_of(scenario)
    elif any(change.tenant for change in scenario.changes):
        raise TraceError(
            f"{scenario.name}: changes: one is about a tenant of the suite, and a trace takes "
            "their place"
        )
    if trace_file.names_tenants:
        return _of_clients(workload, seeds, trace_file, warn)
    return _of_rows(workload, seeds, trace_file, warn)


def build_workloads(
    suite: Suite,
    trace_file: TraceFile | None,
    max_model_lens: Mapping[str, int],
    warn: Warn,
) -> list[Workload]:
    """One workload per profile, scenario and seed, in order; a warning comes once.

    `max_model_lens` are of each machine, by the name of its profile; of a server by "".

    Raises:
        TraceError, WorkloadError: as `build_workload`; or there is too little to measure.
    """
    said: set[str] = set()

    def warn_once(line: str) -> None:
        if line not in said:
            said.add(line)
            warn(line)

    workloads = []
    for profile, max_model_len in max_model_lens.items():
        for scenario in suite.scenarios:
            for seed in suite.every_seed:
                built = build_workload(suite, scenario, seed, max_model_len, trace_file, warn_once)
                name = f"{scenario.name}@{profile}" if len(max_model_lens) > 1 else scenario.name
                workloads.append(replace(built, scenario=name, profile=profile))
    return workloads


def _file_of(scenario: Scenario) -> TraceFile:
    """The trace that a scenario names, on this machine."""
    draw = scenario.draw or DrawSpec()
    if scenario.trace == "servegen":
        form, found = "servegen", find_servegen(draw.model)
        how = f"`hmas traces fetch servegen` downloads {DrawSpec().model}"
    else:
        form, found, how = "azure", find_azure(scenario.trace), "`hmas traces fetch` does"
    if found is None:
        raise TraceError(
            f"{scenario.name}: no {draw.model if scenario.draw else scenario.trace} on this "
            f"machine: {how}; or set HMAS_TRACES to a folder that has it somewhere below"
        )
    return TraceFile(found, form, draw)


def _synthetic(tenant: TenantSpec, length_s: float) -> Sender:
    who = TraceRequest(0.0, 1, 1, tenant.name, tenant.slo_class, tenant.priority)
    if (said := tenant.sessions) is not None:
        return Sessions(
            who, said.rate_rps, said.turns, said.think_s.lognormal(), said.system_tokens,
            said.prompt.lognormal(), said.output.lognormal(), said.most_tokens,
        )  # fmt: skip
    sends = tenant.traffic
    assert sends is not None  # the suite has looked
    # Gaps are Gamma: shape 1/cv^2, so that their coefficient of variation is cv.
    whole = Stretch(
        0.0, length_s, sends.rate_rps * length_s, "Gamma", 1 / sends.arrival_cv**2,
        sends.prompt.lognormal(), sends.output.lognormal(),
    )  # fmt: skip
    return Stream(who, (whole,))


def _of_clients(workload: Workload, seeds: int, file: TraceFile, warn: Warn) -> Workload:
    model, sha256 = _model(file.path)
    _warn_of_lines(model.malformed, warn)
    for note in model.notes:
        warn(note)
    from_s, until_s = (hour * 3600 for hour in file.draw.hours or model.hours)
    half = half_of(from_s, until_s, workload.half)
    length_s = workload.span.until_s
    start_s = block_start_s(workload.scenario, half, length_s, seeds, workload.seed, model.is_sent)
    senders = model.senders(start_s, start_s + length_s, file.draw.clients, workload.seed)
    return replace(
        workload,
        senders=tuple(senders),
        weights=tuple((one.who.tenant, WEIGHTS[one.who.slo_class]) for one in senders),
        provenance=(
            f"{file.path.name} (servegen, sha256 {sha256[:12]}), {len(senders)} clients, from "
            f"hour {start_s / 3600:.2f}"
        ),
    )


def _of_rows(workload: Workload, seeds: int, file: TraceFile, warn: Warn) -> Workload:
    trace, sha256 = _read(file)
    for line in _about_the_file(trace):
        warn(line)
    name, tenants = workload.scenario, workload.spec.tenants
    _check_count(name, file, len(trace.requests))
    rows = with_tenants(RequestColumns.of(trace.requests), tenants, workload.seed)
    half = half_of(0.0, float(rows.arrival_s[-1]) + 1e-6, workload.half)
    span, whole_s = workload.span, half[1] - half[0]
    if seeds == 1 and 0 < (counted_s := whole_s - span.warmup_s - span.tail_s) < span.counted_s:
        warn(f"{name}: {file.path.name} lasts {whole_s:.0f} s, so cases do, too")
        span = replace(span, counted_s=counted_s)
    start_s = block_start_s(name, half, span.until_s, seeds, workload.seed)
    block = rows.between(start_s, start_s + span.until_s)
    _check_count(name, file, len(block))
    block = replace(block, arrival_s=block.arrival_s - start_s)
    return replace(
        workload,
        span=span,
        senders=(Rows(block),),
        provenance=(
            f"{file.path.name} ({file.format}, sha256 {sha256[:12]}, {len(trace.requests)} usable "
            f"rows, {len(trace.malformed)} malformed, {trace.failed} failed), {len(block)} from "
            f"second {start_s:.0f}"
        ),
    )


def _check_count(scenario: str, file: TraceFile, count: int) -> None:
    if count < LEAST_COMPLETIONS:
        raise WorkloadError(
            f"{scenario}: {count} requests from {file.path.name}: at least {LEAST_COMPLETIONS} "
            "are needed to measure capacity"
        )


@lru_cache(maxsize=4)
def _read(file: TraceFile) -> tuple[Trace, str]:
    """A trace and its SHA-256; kept, because every seed and scenario reads it."""
    trace = read_trace(file.path, file.format)
    return trace, hashlib.sha256(file.path.read_bytes()).hexdigest()


@lru_cache(maxsize=4)
def _model(folder: Path) -> tuple[Model, str]:
    return Model.read(folder), digest(folder)


def _warn_of_lines(malformed: Sequence[str], warn: Warn) -> None:
    for line in malformed[:NAMED_LINES]:
        warn(line)
    if len(malformed) > NAMED_LINES:
        warn(f"... and {len(malformed) - NAMED_LINES} more malformed lines")
    if malformed:
        warn(f"{len(malformed)} malformed lines left out")


def _about_the_file(trace: Trace) -> list[str]:
    lines = list[str]()
    _warn_of_lines(trace.malformed, lines.append)
    if trace.failed:
        lines.append(f"{trace.failed} failed requests left out")
    if trace.out_of_order:
        lines.append(f"{trace.out_of_order} rows out of order: sorted by arrival")
    return lines
