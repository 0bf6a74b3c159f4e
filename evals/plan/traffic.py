"""What traffic is planned for? A suite's first scenario or a trace, at any multiple of its rate.

Traffic and loads are columns, with no object for a request: a day of a million requests, or a
thousand times an hour's traffic, fits into memory.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evals.machines.profile_file import load_profile, machine_of
from evals.requests import read_trace
from evals.requests.offer import offer
from evals.requests.scaling import Requests, WorkloadError, clip_lengths, span_s
from evals.requests.scenario import TraceFile, build_workload
from evals.requests.servegen import Draw, draw_requests
from evals.requests.tenants import TenantShare, assign_tenants
from evals.suite.suite import Suite, load_suite
from serving.contracts.settings import EngineSettings
from serving.engines.block_contents import number_blocks
from serving.engines.offered import Workload, columns, promised_to
from serving.engines.profile import EngineProfile

SPREAD_S = 60.0  # a copy of the trace begins up to so much later
DEFAULT_PROFILE: str = Suite.model_fields["profile"].default


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests at their own rate, and the machine and contract that they meet.

    Attributes:
        name: where they come from.
        workload: the requests, the first at 0 s.
        prefixes: shared prompt blocks of each; empty where the machine caches none.
        profile, settings: of the engine.
    """

    name: str
    workload: Workload
    prefixes: Sequence[tuple[int, ...]]
    profile: EngineProfile
    settings: EngineSettings

    @classmethod
    def of(
        cls, name: str, requests: Requests, profile: EngineProfile, settings: EngineSettings
    ) -> "Traffic":
        """Of requests that are at hand one by one.

        Raises:
            WorkloadError: they have no rate.
        """
        span_s(requests)
        prefixes = [one.prefix for one in requests] if profile.prefix_caching else ()
        return cls(name, columns(requests, profile), prefixes, profile, settings)

    @property
    def span_s(self) -> float:
        """Seconds from the first arrival to the last."""
        arrivals = self.workload.arrival_s
        return float(arrivals[-1] - arrivals[0])


def read_traffic(
    file: TraceFile, *, profile: str | None, slo_class: str, seed: int,
    warn: Callable[[str], None],
) -> Traffic:  # fmt: skip
    """A suite's first scenario (`.toml`), or a trace.

    Args:
        file: of a suite only the path counts.
        profile: name of the machine; None: the suite's, or the suites' default.
        slo_class: of all requests of a trace that names no tenants.
        seed: of what is drawn.
        warn: gets a line for each thing that the reader of the plan must know.

    Raises:
        SuiteError, TraceError: the file cannot be used; names file, line and key.
        WorkloadError: the class is unknown, or there are too few requests.
    """
    if file.path.suffix == ".toml":
        suite = load_suite(file.path)
        machine, spec = machine_of(suite, profile), suite.scenarios[0]
        workload = build_workload(
            spec, seed=seed, max_model_len=_longest(machine), trace_file=None, warn=warn
        )
        rate_rps = len(workload.requests) / span_s(workload.requests)
        name = f"{suite.name}, {spec.name}"
        requests = offer(workload, rate_rps).requests
        return Traffic.of(name, requests, machine, suite.settings_of(spec))
    machine, settings = load_profile(profile or DEFAULT_PROFILE), EngineSettings()
    if file.names_tenants:
        return _drawn(file, machine, settings, seed, warn)
    if settings.slo_of(slo_class) is None:
        raise WorkloadError(
            f"--slo-class {slo_class}: known: {', '.join(settings.contract.class_names)}"
        )
    trace = read_trace(file.path, file.format)
    _warn_of_lines(trace.malformed, warn)
    requests = assign_tenants(trace.requests, [TenantShare("default", slo_class)], seed)
    requests, clipped = clip_lengths(requests, _longest(machine))
    _warn_of_clipped(clipped, machine, warn)
    return Traffic.of(file.path.name, requests, machine, settings)


def _drawn(
    file: TraceFile, machine: EngineProfile, settings: EngineSettings, seed: int,
    warn: Callable[[str], None],
) -> Traffic:  # fmt: skip
    """ServeGen's clients, from columns to columns."""
    drawn = draw_requests(file.path, file.draw or Draw(), seed)
    _warn_of_lines(drawn.malformed, warn)
    for note in drawn.notes:
        warn(note)
    sent, clipped = drawn.columns.clipped(_longest(machine))
    _warn_of_clipped(clipped, machine, warn)
    prefixes = [()] * len(sent) if machine.prefix_caching else []
    contents = None
    if machine.prefix_caching:
        contents = number_blocks(
            prefixes, sent.prompt_tokens, sent.output_tokens, machine.block_size
        )
    workload = Workload(
        sent.arrival_s, sent.prompt_tokens, sent.output_tokens,
        np.full(len(sent), sent.output_tokens.max()), np.zeros(len(sent), np.int32),
        sent.sender, sent.senders, contents,
    )  # fmt: skip
    traffic = Traffic(file.path.name, workload, prefixes, machine, settings)
    if traffic.span_s <= 0:
        raise WorkloadError(f"{file.path}: its requests span 0 s, so they have no rate")
    return traffic


def targets_ms(traffic: Traffic, settings: EngineSettings) -> NDArray[np.float64]:
    """TTFT, TPOT and E2E targets of each sender, infinite where it has none: (senders, 3)."""
    slos = [promised_to(one, settings)[1] for one in traffic.workload.senders]
    return np.array(
        [
            [math.inf if ms is None else ms for ms in (slo.ttft_ms, slo.tpot_ms, slo.e2e_ms)]
            for slo in slos
        ]
    )


def at_load(traffic: Traffic, load: float, seed: int) -> Workload:
    """The traffic `load` times, on the trace's clock: an hour stays an hour, a peak a peak.

    Above 1 come copies of the trace, each begun up to a minute later (its end comes round to its
    start), so that their bursts do not fall together. Below a whole number of copies each request
    stays with equal chance. Load 1 is the trace itself. Copies share no prompts with each other.
    """
    base, span = traffic.workload, traffic.span_s
    rng, count = np.random.default_rng(seed), len(base)
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
            tuple(block * copies + k for block in traffic.prefixes[row])
            for k, row in zip(copy.tolist(), rows.tolist(), strict=True)
        )
        contents = number_blocks(prefixes, prompt, output, traffic.profile.block_size)
    return Workload(
        flat[kept], prompt, output, base.max_tokens[rows], base.cached_tokens[rows],
        base.sender[rows], base.senders, contents,
    )  # fmt: skip


def _longest(profile: EngineProfile) -> int:
    """Tokens of a request that any replica can serve."""
    return min(profile.max_model_len, (profile.kv_blocks - 1) * profile.block_size)


def _warn_of_lines(malformed: Sequence[str], warn: Callable[[str], None]) -> None:
    if malformed:
        warn(f"{len(malformed)} malformed lines left out, the first: {malformed[0]}")


def _warn_of_clipped(clipped: int, machine: EngineProfile, warn: Callable[[str], None]) -> None:
    if clipped:
        warn(f"{clipped} requests clipped to {_longest(machine)} tokens")
