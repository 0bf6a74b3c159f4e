"""How would SGLang have served this workload? An emulation in virtual time.

It stands beside `serving.engines.simulated`: same profile (KV capacity, most running requests, and
the cost model of SGLang's kernels where the profile has one), same judge of outcomes. It is not
SGLang: `scheduler` follows what the source of 0.5.23 does by default, and this leaves out

- the radix cache as a saver of work: prompts of the traces share nothing, so only its
  capacity counts, which is all evictable;
- the lag of overlap scheduling: a batch is scheduled, its time passes, its tokens are
  there, as for vLLM in the simulator;
- clients that send `ignore_eos`, for whom SGLang reserves more; aborts; kernels and any
  work of SGLang's own processes beyond the cost model.
"""

from collections.abc import Callable, Sequence

import numpy as np

from evals.arms.sglang.scheduler import EmulatedScheduler, ServedRequest, Step
from serving.contracts import Finish, Outcome, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.gaps import BINS, NEVER, add_gaps
from serving.engines.offered import promised_to, track_of
from serving.engines.profile import EngineProfile
from serving.engines.step_noise import step_factors
from serving.perception.accounting import RequestTrack
from serving.policies.base import seconds

CHUNKED_PREFILL_SIZE = 8192  # SGLang's default on GPUs of 60 to 160 GB; 4096 on CPUs
_INPUT_MARGIN = 5  # prompts must be so many tokens shorter than the longest request


class EmulatedSGLang:
    """SGLang 0.5.23's default scheduling, emulated in virtual time; one workload per instance.

    Of the profile's blocks and block size, which are vLLM's, only the product counts. `mixed` is
    SGLang's `--enable-mixed-chunk`; `recomputed_tokens`, `gaps_of_s` and `gap_counts` are as of the
    compiled engine.

    Raises:
        ValueError: chunked_prefill_size below 1, or with mixed chunks not above the requests that
            may run; or a KV cache too small for any request.
    """

    def __init__(
        self,
        profile: EngineProfile,
        settings: EngineSettings,
        *,
        chunked_prefill_size: int = CHUNKED_PREFILL_SIZE,
        mixed: bool = False,
    ) -> None:
        if chunked_prefill_size < 1:
            raise ValueError(
                f"chunked_prefill_size = {chunked_prefill_size}: expected at least 1 token"
            )
        if mixed and chunked_prefill_size <= profile.max_active_requests:
            raise ValueError(
                f"chunked_prefill_size = {chunked_prefill_size}: the tokens of "
                f"{profile.max_active_requests} running requests leave no room in mixed chunks"
            )
        kv_tokens = profile.kv_blocks * profile.block_size
        self._longest = min(profile.max_model_len, kv_tokens) - 1  # prompt and output
        if self._longest <= _INPUT_MARGIN + 1:
            raise ValueError(
                f"kv_blocks = {profile.kv_blocks}, block_size = {profile.block_size}, "
                f"max_model_len = {profile.max_model_len}: no request fits; give more of each"
            )
        self.settings = settings
        self._cost = profile.other_costs.get("sglang", profile.cost)
        self.scheduler = EmulatedScheduler(
            kv_tokens, profile.max_active_requests, chunked_prefill_size, mixed
        )
        self.recomputed_tokens = 0
        self.gaps_of_s, self.gap_counts = NEVER, np.zeros(BINS, np.int64)
        self._decode_ends_s: list[float] = []
        self._factors, self._timed = step_factors(profile), 0
        self._now_s = 0.0
        self._tracks: dict[int, RequestTrack] = {}
        self._true_tokens: dict[int, int] = {}
        self._outcomes: dict[int, Outcome] = {}

    def now(self) -> float:
        """Virtual seconds since the workload began."""
        return self._now_s

    def run(
        self,
        requests: Sequence[TraceRequest],
        until_s: float | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> list[Outcome]:
        """Serve `requests` (sorted by arrival) and return one outcome for each, in order.

        Every client allows the longest output of the workload, as in the simulator of
        vLLM, and as far as SGLang lets it: no longer than the context or the KV cache. At `until_s`
        requests that are still inside are `unfinished` and missed; `on_step` is shown each step as
        it starts.
        """
        max_tokens = max((r.output_tokens for r in requests), default=1)
        arriving = 0
        while until_s is None or self._now_s < until_s:
            while arriving < len(requests) and requests[arriving].arrival_s <= self._now_s:
                self._submit(arriving, requests[arriving], max_tokens)
                arriving += 1
            step = self.scheduler.schedule()
            if step is not None:
                if on_step is not None:
                    on_step(step)
                self._run_step(step)
            elif arriving < len(requests):
                self._now_s = requests[arriving].arrival_s
            else:
                break
        for request in self.scheduler.running:
            self._see_tokens(request, self.scheduler.running.output_tokens(request))
        for i in list(self._tracks):
            self._leave(i, "unfinished")
        for i in range(arriving, len(requests)):  # the end came before they did
            self._track(i, requests[i], max_tokens)
            self._leave(i, "unfinished")
        return [self._outcomes[i] for i in range(len(requests))]

    def _submit(self, index: int, offered: TraceRequest, max_tokens: int) -> None:
        self._track(index, offered, max_tokens)
        if offered.prompt_tokens >= self._longest - _INPUT_MARGIN:
            self._leave(index, "rejected")
            return
        max_new = min(max_tokens, self._longest - offered.prompt_tokens - 1)
        self._true_tokens[index] = offered.output_tokens
        self.scheduler.waiting.append(
            ServedRequest(
                index, offered.prompt_tokens, min(offered.output_tokens, max_new), max_new
            )
        )

    def _run_step(self, step: Step) -> None:
        for request in step.retracted:
            self._tracks[request.index].preemptions += 1
            self.recomputed_tokens += request.prompt_tokens + request.output_tokens - 1
            self._see_tokens(request, request.output_tokens)
        for prefill in step.prefills:
            track = self._tracks[prefill.request.index]
            if track.admitted_s is None:
                track.admitted_s = self._now_s
        took_s = step.shape.seconds(self._cost)
        if len(self._factors):
            took_s *= float(self._factors[self._timed % len(self._factors)])
        self._timed += 1
        self._now_s += took_s
        finished = self.scheduler.complete(step)
        if step.shape.decodes:
            self._decode_ends_s.append(self._now_s)
        for prefill in step.prefills:
            if prefill.last:
                self._on_tokens(self._tracks[prefill.request.index], [self._now_s])
        for request in finished:
            self._see_tokens(request, request.output_tokens)
            whole = request.output_tokens == self._true_tokens[request.index]
            self._leave(request.index, "stop" if whole else "length")

    def _see_tokens(self, request: ServedRequest, output_tokens: int) -> None:
        # Decoded tokens are not looked at one by one: a request has one of each of its last steps.
        track = self._tracks[request.index]
        if output_tokens > track.output_tokens:
            self._on_tokens(track, self._decode_ends_s[track.output_tokens - output_tokens :])

    def _on_tokens(self, track: RequestTrack, times_s: list[float]) -> None:
        known_s = times_s if track.first_token_s is None else [track.last_token_s, *times_s]
        gaps_s = np.diff(np.array(known_s))
        track.late_gaps += int((gaps_s > seconds(track.view.slo.itl_ms)).sum())
        if self.gaps_of_s[0] <= track.view.arrival_s <= self.gaps_of_s[1]:
            add_gaps(self.gap_counts, gaps_s)
        track.on_tokens(len(times_s), times_s[-1])

    def _track(self, index: int, offered: TraceRequest, max_tokens: int) -> None:
        promised = promised_to(offered, self.settings)
        self._tracks[index] = track_of(index, offered, max_tokens, promised)

    def _leave(self, index: int, finish: Finish) -> None:
        self._outcomes[index] = self._tracks.pop(index).outcome(index, finish, self._now_s)
