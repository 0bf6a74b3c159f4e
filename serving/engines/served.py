"""What became of the requests of a compiled run? Columns, and outcomes when somebody asks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contracts import SLO, Outcome, TraceRequest
from serving.contracts.requests import Finish, meets_itl
from serving.contracts.settings import EngineSettings
from serving.engines.offered import Workload, longest_answer, promised_to, track_of
from serving.engines.resumed import Begun
from serving.engines.step_state import REJECTED, SERVED, EngineState
from serving.perception.accounting import RequestTrack
from serving.policies import POLICIES

_POLICIES = tuple(POLICIES)
FINISHES: tuple[Finish, ...] = ("stop", "length", "rejected", "unfinished")


@dataclass(frozen=True)
class Served:
    """One row for each request of a `Workload`, in its order. Times are seconds, NaN where none.

    Attributes:
        progress: the loop's own records (`step_state.PROGRESS`).
        workload: what was offered.
        now_s: when the run ended.
        late_gaps: between its tokens, as `Outcome` has it.
        admitted_by: policy (its number; -1: not admitted) and epoch, shape (requests, 2); None of
            stock vLLM.
        contracts: from which row on which settings held, where the contract changed in the run.
    """

    progress: NDArray[Any]
    workload: Workload
    now_s: float
    late_gaps: NDArray[np.int32]
    admitted_by: NDArray[np.int64] | None = None
    contracts: Sequence[tuple[int, EngineSettings]] = ()

    @classmethod
    def of(
        cls, state: EngineState, workload: Workload, rows: NDArray[Any] | None = None,
        contracts: Sequence[tuple[int, EngineSettings]] = (),
    ) -> "Served":  # fmt: skip
        """As far as a run has come; `rows` are the core's own (`state.REQUEST`), if there is one.

        They are much larger than all else here, and are not kept.
        """
        now_s, admitted_by = float(state.engine["now_s"].max()), None
        if rows is not None:
            rows = rows[: len(workload)]
            admitted_by = np.stack((rows["policy"], rows["epoch"]), axis=1)
        return cls(state.progress, workload, now_s, state.gaps.late, admitted_by, contracts)

    @cached_property
    def output_tokens(self) -> NDArray[np.int32]:
        """Of the answer, as far as it came."""
        tokens: NDArray[np.int32] = self.progress["known"] - self.progress["prompt"]
        return tokens

    @cached_property
    def finish(self) -> NDArray[np.int8]:
        """Indices of `FINISHES`."""
        state = self.progress["state"]
        whole = self.output_tokens >= np.maximum(self.workload.output_tokens, 1)
        codes = np.where(whole, 0, 1)
        return np.where(state == SERVED, codes, np.where(state == REJECTED, 2, 3)).astype(np.int8)

    @cached_property
    def finished_s(self) -> NDArray[np.float64]:
        """When it left; for unfinished ones the run's end."""
        return np.where(self.finish == 3, self.now_s, self.progress["last_s"])

    @property
    def preemptions(self) -> NDArray[np.int32]:
        """How often it was preempted."""
        return self.progress["preemptions"]

    @property
    def cached_tokens(self) -> NDArray[np.int32]:
        """Tokens of its prompt that were in the KV cache when it was admitted."""
        return self.progress["cached_tokens"]

    @property
    def queue_s(self) -> NDArray[np.float64]:
        """From arrival to admission."""
        return self.progress["admitted_s"] - self.workload.arrival_s

    @property
    def ttft_s(self) -> NDArray[np.float64]:
        """From arrival to the first token."""
        return self.progress["first_token_s"] - self.workload.arrival_s

    @property
    def tpot_s(self) -> NDArray[np.float64]:
        """Mean time between tokens; NaN where there were fewer than two."""
        gaps, first_s = self.output_tokens - 1, self.progress["first_token_s"]
        tpot_s = np.full(len(gaps), math.nan)
        taken_s = np.maximum(0.0, self.progress["last_s"] - first_s)
        np.divide(taken_s, gaps, out=tpot_s, where=gaps > 0)
        return tpot_s

    @property
    def e2e_s(self) -> NDArray[np.float64]:
        """From arrival to the end."""
        return self.finished_s - self.workload.arrival_s

    def met(self, targets_ms: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which were served and met all their targets, as `accounting.judge` has it.

        Those for gaps between tokens are those of the run.

        Args:
            targets_ms: of TTFT, TPOT and E2E, infinite where there is none, shape (requests, 3).
        """
        met = self.finish <= FINISHES.index("length")
        met &= meets_itl(self.late_gaps, np.maximum(0, self.output_tokens - 1))
        for value_s, most_ms in zip(
            (self.ttft_s, self.tpot_s, self.e2e_s), targets_ms.T, strict=True
        ):
            met &= ~(value_s * 1000 > most_ms)  # what there is not, is not late
        return met

    def outcomes(self, requests: Sequence[TraceRequest], settings: EngineSettings) -> list[Outcome]:
        """One for each of the requests, in order; costs more than to serve them.

        Args:
            requests: of the workload.
            settings: that held when the run began.
        """
        longest = longest_answer(requests)
        # Many requests were promised the same, and to look it up takes longer than to serve one.
        known: dict[tuple[int, str, str, SLO | None], tuple[str, SLO]] = {}

        def track(index: int) -> RequestTrack:
            offered, held = requests[index], settings
            for first, changed in self.contracts:
                if self.workload.begun + index >= first:
                    held = changed
            key = id(held), offered.tenant, offered.slo_class, offered.slo
            if key not in known:
                known[key] = promised_to(offered, held)
            return track_of(index, offered, offered.max_tokens or longest, known[key])

        return self._outcomes(self.workload.begun, len(requests), track)

    def resumed_outcomes(self, begun: Sequence[Begun]) -> list[Outcome]:
        """One for each request that the engine held before the run, in order."""
        return self._outcomes(0, len(begun), lambda index: begun[index].track(f"b{index}"))

    def _outcomes(
        self, first: int, count: int, track_of_index: Callable[[int], RequestTrack]
    ) -> list[Outcome]:
        # By rows, in Python's own numbers: arrays give them slowly one by one.
        rows = self.progress[first : first + count]
        end = slice(first, first + count)
        columns = zip(
            rows["admitted_s"].tolist(), rows["first_token_s"].tolist(), rows["last_s"].tolist(),
            self.output_tokens[end].tolist(), rows["preemptions"].tolist(),
            rows["cached_tokens"].tolist(), self.finish[end].tolist(),
            self.finished_s[end].tolist(), self.late_gaps[end].tolist(), strict=True,
        )  # fmt: skip
        admitted_by = None if self.admitted_by is None else self.admitted_by[end].tolist()
        outcomes = []
        for i, (
            admitted_s, first_s, last_s, tokens, preempted, cached, code, end_s, late,
        ) in enumerate(columns):  # fmt: skip
            track = track_of_index(i)
            track.admitted_s = None if math.isnan(admitted_s) else admitted_s
            track.first_token_s = track.answer_s = None if math.isnan(first_s) else first_s
            track.last_token_s, track.output_tokens = last_s, tokens
            track.preemptions, track.cached_tokens, track.late_gaps = preempted, cached, late
            if admitted_by is not None and admitted_by[i][0] >= 0:
                track.policy, track.epoch = _POLICIES[admitted_by[i][0]], admitted_by[i][1]
            outcomes.append(track.outcome(i, FINISHES[code], end_s))
        return outcomes
