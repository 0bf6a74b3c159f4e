"""What does a compiled engine write into its books, and whom does it hold? Told when asked.

The loop notes as numbers what happens to a request. When somebody asks, these become what the hook
inside vLLM writes down at once: tracks, arrivals and outcomes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contracts import SLO, Arrival, ResidentRequest, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.core.state import Core
from serving.engines.notes import ADMITTED, ARRIVED, KINDS, REFUSED, Notes
from serving.engines.offered import Workload
from serving.engines.step_state import RUNNING, EngineState
from serving.perception.accounting import BEHIND, Accounting, RequestTrack
from serving.policies import POLICIES, RequestView

_POLICIES = tuple(POLICIES)
Offered = ResidentRequest | TraceRequest


@dataclass(slots=True)
class VirtualRun:
    """One run, as the books see it.

    Attributes:
        state, notes: of the loop.
        workload: the same requests as columns.
        offered: requests by row.
        promises: classes and targets.
        promise: which of them each request has, shape (requests,).
        told: events that the books know.
    """

    state: EngineState
    notes: Notes
    workload: Workload
    offered: Sequence[Offered]
    promises: list[tuple[str, SLO]] = field(default_factory=list)
    promise: NDArray[np.int64] = field(init=False)
    told: int = 0

    def __post_init__(self) -> None:
        self.promise = np.zeros(len(self.workload), np.int64)

    def name(self, row: int) -> str:
        """What a request is called."""
        begun = self.workload.begun
        return f"b{row}" if row < begun else f"r{row - begun}"

    def promised(self, row: int) -> tuple[str, SLO]:
        """Class and targets of a request."""
        return self.promises[int(self.promise[row])]


class VirtualBooks:
    """The accounting of one compiled engine.

    Args:
        settings: of the engine.

    Attributes:
        accounting: as inside vLLM; up to date after `tell`.
        run: the present one; None before.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.accounting = Accounting(settings.journal_size, settings.max_tenants)
        self.run: VirtualRun | None = None
        self.follow(settings)

    def follow(self, settings: EngineSettings) -> None:
        """Another contract is in force."""
        self.accounting.listed = frozenset(settings.contract.tenants)

    def tell(self, core: Core, policy: str) -> None:
        """Enter what has happened since the last time, all under `policy`."""
        run = self.run
        if run is None:
            return
        head = int(run.notes.head[0])
        events, run.told = run.notes.events[run.told : head].tolist(), head
        for event in events:
            row, kind = divmod(event, KINDS)
            if kind == ARRIVED:
                self._arrive(run, row)
            elif kind == REFUSED:
                self._refuse(run, row, policy, int(core.engine["epoch"][0]))
            elif kind == ADMITTED:
                request, track = core.requests[row], self.accounting.tracks[run.name(row)]
                track.policy, track.epoch = _POLICIES[request["policy"]], int(request["epoch"])
                self.accounting.admit(track, int(run.state.progress["cached_tokens"][row]))
            else:
                self._leave(run, row, core.requests["deprioritised_s"][row].tolist())

    def inside(self, core: Core, waiting: Iterable[int], limit: int) -> list[ResidentRequest]:
        """The first requests inside: running ones in their order, waiting ones as they came."""
        run = self.run
        if run is None:
            return []
        running = run.state.running[: run.state.engine["running"][0]].tolist()
        waits = {run.name(row): row for row in waiting}
        came = (waits[name] for name in self.accounting.tracks if name in waits)
        return [self._resident(run, core, row) for row in [*running, *came][:limit]]

    def _resident(self, run: VirtualRun, core: Core, row: int) -> ResidentRequest:
        one, known, offered = run.state.progress[row], core.requests[row], run.offered[row]
        slo_class, slo = run.promised(row)
        name, running = run.name(row), one["state"] == RUNNING
        cached = self.accounting.tracks[name].cached_tokens if running else known["cached_tokens"]
        return ResidentRequest(
            name, float(known["arrival_s"]), offered.tenant, slo_class, slo,
            int(one["prompt"]), int(known["max_tokens"]), offered.priority, bool(running),
            min(int(one["computed"]), int(one["known"]) - 1), int(one["known"] - one["prompt"]),
            _or_none(one["admitted_s"]), _or_none(one["first_token_s"]), int(one["preemptions"]),
            int(cached), offered.prefix,
        )  # fmt: skip

    def _arrive(self, run: VirtualRun, row: int) -> None:
        one = run.offered[row]
        slo_class, slo = run.promised(row)
        view = RequestView(
            run.name(row), one.tenant, slo_class, slo, one.arrival_s, 0.0, one.prompt_tokens,
            one.priority,
        )  # fmt: skip
        track = RequestTrack(
            view, int(run.workload.max_tokens[row]), ("", 0), one.prompt_tokens,
            int(run.notes.cached[row]), one.prefix,
        )  # fmt: skip
        self.accounting.arrive(track)
        if isinstance(one, ResidentRequest):
            track.remember(one)

    def _refuse(self, run: VirtualRun, row: int, policy: str, epoch: int) -> None:
        one = run.offered[row]
        slo_class, slo = run.promised(row)
        refused = Arrival(
            0, run.name(row), one.arrival_s, one.tenant, slo_class, slo, one.prompt_tokens,
            int(run.workload.max_tokens[row]), one.priority,
        )  # fmt: skip
        self.accounting.refuse(refused, policy, epoch)

    def _leave(self, run: VirtualRun, row: int, deprioritised_s: list[float]) -> None:
        one, name = run.state.progress[row], run.name(row)
        track = self.accounting.tracks[name]
        track.admitted_s, track.preemptions = _or_none(one["admitted_s"]), int(one["preemptions"])
        track.first_token_s = track.answer_s = _or_none(one["first_token_s"])
        track.last_token_s = float(one["last_s"])
        track.output_tokens = int(one["known"] - one["prompt"])
        track.late_gaps = int(run.state.gaps.late[row])
        for behind, after_s in zip(BEHIND, deprioritised_s, strict=True):
            if not math.isnan(after_s):
                track.deprioritised[behind] = after_s
        whole = track.output_tokens >= max(1, int(run.workload.output_tokens[row]))
        self.accounting.leave(name, "stop" if whole else "length", track.last_token_s)


def _or_none(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)
