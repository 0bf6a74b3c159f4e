"""What is set before each step? Running order, token budget, admission, the load slide.

Called by `SchedulerHook` between steps; the formulas are in `step_limits`, `pacing` and `victims`,
which request may go before a partial prefill in `passing`.
Each rule acts only if the limits in force switch it on, and counts what it did.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from serving import compat
from serving.batch import DecodeState
from serving.contracts import Envelope, Limits
from serving.observer import Observer
from serving.pacing import resting
from serving.passing import Passing
from serving.queue import PolicyQueue
from serving.standing import hopeless_s
from serving.step_limits import (
    LoadSlide,
    blocks_of,
    blocks_of_batch,
    peak_tokens,
    slack_budget,
)
from serving.victims import Victim

_SLIDE_PERIOD_S = 0.5
_SHORT_LAXITY = 0.25  # of the usual TTFT target: less is short


class StepControl:
    """Applies the limits in force to the coming step.

    Attributes:
        last_budget: tokens the last step was allowed.
        passing: which partial prefills a waiting request goes before.
        hidden: running requests that this step leaves out, for `SchedulerHook` to hide.
    """

    def __init__(
        self, scheduler: Any, queue: PolicyQueue, observer: Observer, envelope: Envelope
    ) -> None:
        self._scheduler, self._queue, self._observer = scheduler, queue, observer
        self._envelope, self._groups = envelope, compat.kv_groups(scheduler)
        self.slide = LoadSlide()
        self._slide_due_s = 0.0
        self.passing = Passing(scheduler, queue, observer, self._groups)
        self.last_budget = 0
        self._counts = queue.counts
        self.hidden: list[Any] = []
        self._paced_steps = 0
        self._aligned_block = compat.aligned_block(scheduler)
        self._in_front: tuple[str, int] = ("", 0)  # which prompt waits for a block, and for which
        self._saved = 0  # tokens that decodes have left for it
        self._would_be: Any = None  # the victim that vLLM would have taken

    def prepare(self, limits: Limits, now_s: float) -> None:
        """Demote, order and limit; afterwards vLLM's own `schedule` does the step."""
        queue, scheduler = self._queue, self._scheduler
        if now_s >= self._slide_due_s:
            self._slide_due_s = now_s + _SLIDE_PERIOD_S
            self._update_load()
        queue.advance(now_s)
        if self._envelope.prefix_caching or scheduler.connector is not None:
            queue.refresh_cached()
        self._would_be = None
        self.reveal()
        state: DecodeState | None = None
        rest: list[Any] = []
        if limits.follow_slack or limits.pace_decodes or limits.kv_reserve > 0.0:
            state = self._observer.batch.state(self._observer.busy_until_s(now_s))
        partial: list[Any] = []
        if limits.follow_slack or limits.prefill_by_key or not queue.policy.is_stock:
            partial = self._order_running(now_s)
        elif limits.max_partial_prefills:
            partial = self._partial()
        if limits.pace_decodes and state is not None:
            state, rest = self._rest(state, bool(partial or queue))
        budget = self._token_budget(limits, state, partial, len(rest), now_s)
        self.last_budget = self._whole_blocks(budget, len(rest))
        scheduler.max_num_scheduled_tokens = self.last_budget
        running = len(scheduler.running)
        # vLLM starts those first that hold remote KV. To hold them back would free nothing.
        kept = running + compat.ready_elsewhere(scheduler)
        if kept > running and queue.policy.name != "fcfs":
            compat.order_elsewhere(scheduler, lambda r: self.passing.place(r, now_s))
        # A session that waits for its client does not run, but keeps one of vLLM's slots.
        silent = compat.silent_sessions(scheduler)
        slots = self._envelope.max_active_requests - silent
        most = min(self._max_active(limits, state, kept), slots)
        threshold = limits.long_prefill_threshold
        # No prefill yields to a head that this step would not admit.
        if limits.prefill_by_key and partial and queue and most > running:
            room = self.last_budget - (running - len(partial) - len(rest))
            threshold = self.passing.make_room(threshold, room, partial, now_s)
        if queue and 0 < limits.max_partial_prefills <= len(partial):
            passes = self.passing.passes
            self._counts["partial_held_steps"] += not passes
            most = min(most, kept + passes)
        scheduler.scheduler_config.long_prefill_token_threshold = threshold
        if limits.choose_victims:
            self._order_victims(now_s)
        # What is hidden is not in the batch that vLLM will see, so it does not count there.
        self.hidden = self.passing.yielding + rest
        compat.set_max_active(scheduler, most + silent - len(self.hidden), len(self.hidden))

    def reveal(self) -> None:
        """Hide no request."""
        self.hidden = []
        self._observer.batch.resting = 0
        self.passing.clear()

    def end_step(self, scheduled: Mapping[str, int]) -> None:
        """What is preempted between steps (a cache reset) was not chosen here."""
        self._would_be = None
        self._queue.end_step(scheduled)

    def preempted(self, request: Any) -> None:
        """This one was taken; counted if vLLM would have taken another."""
        if self._would_be is not None and request is not self._would_be:
            self._counts["chosen_victims"] += 1

    def peak_blocks(self, state: DecodeState | None = None) -> int:
        """KV blocks at the predicted peak of the running batch, shared ones once."""
        if state is None:
            state = self._observer.batch.state(0.0)
        count, shared = len(state.tokens), 0
        if self._envelope.prefix_caching:
            held = blocks_of_batch(self._groups, state.tokens.sum(), count)
            shared = max(0, held - compat.used_blocks(self._scheduler))
        peak = peak_tokens(state.tokens, state.remaining)
        return blocks_of_batch(self._groups, peak, count) - shared

    def _update_load(self) -> None:
        prefill_s = self._observer.prefill_s_per_token()
        decode_s = self._observer.decode_s_per_token()
        self.slide.update(self._queue.backlog_tokens * prefill_s, self._observer.mean_ttft_target_s)
        self._queue.set_load(self.slide.load, prefill_s, decode_s)

    def _order_running(self, now_s: float) -> list[Any]:
        # Decodes first, partial prefills by standing and key: the last is the next victim.
        partial = self._partial()
        if partial:
            keyed = sorted((*self.passing.place(r, now_s), i) for i, r in enumerate(partial))
            partial = [partial[i] for *_, i in keyed]
            running = self._scheduler.running
            if running[-len(partial) :] != partial:
                begun = {r.request_id for r in partial}
                others = [r for r in running if r.request_id not in begun]
                self._scheduler.running = others + partial
        return partial

    def _partial(self) -> list[Any]:
        # Out of the running list itself: a request must neither be lost nor invented here.
        begun = self._observer.batch.partial_prefills()
        if not begun:
            return []
        return [r for r in self._scheduler.running if r.request_id in begun]

    def _rest(self, state: DecodeState, prompts_wait: bool) -> tuple[DecodeState, list[Any]]:
        """The batch without the decodes that skip the step, and these decodes.

        None skip while blocks run out: vLLM preempts only requests that it sees.
        """
        observer = self._observer
        self._paced_steps += 1
        if self._is_short_of_blocks():
            return state, []
        mask = resting(
            state, observer.cost.coefficients, observer.cost.margin,
            prompts_wait=prompts_wait, step=self._paced_steps,
        )  # fmt: skip
        rest = observer.batch.sit_out(mask)
        self._counts["rested_decodes"] += len(rest)
        return replace(state, decoding=state.decoding & ~mask), rest

    def _is_short_of_blocks(self) -> bool:
        running = len(self._scheduler.running)
        need = sum(running + self.last_budget // size for size, _ in self._groups)
        return compat.free_blocks(self._scheduler) <= need

    def _token_budget(
        self, limits: Limits, state: DecodeState | None, partial: list[Any], resting: int,
        now_s: float,
    ) -> int:  # fmt: skip
        running = len(self._scheduler.running) - resting
        if not limits.follow_slack or state is None or not running:
            return limits.token_budget
        cost, share = self._observer.cost, 0.0
        if limits.prefill_share > 0.0 and self._prefill_is_late(partial, now_s):
            share = limits.prefill_share
        context = partial[0].num_computed_tokens if partial else 0
        sized = functools.partial(
            slack_budget, limits.token_budget, state, cost.coefficients, cost.margin
        )
        budget = sized(share, context)
        if share and budget < limits.token_budget:
            self._counts["share_raised_steps"] += budget > sized(0.0, context)
        # No decode is left out, nor are its draft tokens.
        drafts = int(self._scheduler.num_spec_tokens) * int(state.decoding.sum())
        least = math.ceil(state.turns * running)
        budget = min(limits.token_budget, max(budget + drafts, least))
        self._counts["slack_bound_steps"] += budget < limits.token_budget
        return budget

    def _whole_blocks(self, budget: int, resting: int) -> int:
        """`budget`, or more of it where vLLM prefills whole blocks only and it has saved enough.

        Decodes take their tokens first. What they leave is saved up from step to step until
        it makes the block that the prompt in front needs, so that prompts move on at the
        rate that the budgets allow.
        """
        most = self._envelope.token_budget
        if not self._aligned_block or budget >= most:
            return budget
        partial = self._partial()
        if partial:
            name, begin = partial[0].request_id, partial[0].num_computed_tokens
            left = partial[0].num_tokens - begin
        elif self._queue:
            view = self._queue.head_place()[0]
            name, begin, left = view.request_id, view.cached_tokens, view.prompt_tokens
        else:
            return budget
        if (name, begin) != self._in_front:  # another one, or it has moved on
            self._in_front, self._saved = (name, begin), 0
        need = min(left, self._aligned_block - begin % self._aligned_block)
        decodes = len(self._scheduler.running) - len(partial) - resting
        room = max(1, budget - decodes * (1 + self._scheduler.num_spec_tokens))
        self._saved += room
        if room < need <= self._saved:
            budget = min(most, budget + need - room)
        return budget

    def _prefill_is_late(self, partial: list[Any], now_s: float) -> bool:
        # Short but not hopeless: time given to a prefill that is late anyway is lost.
        views = [self.passing.view_of_rest(r) for r in partial[:1]]
        if self._queue:
            views.append(self._queue.head_place()[0])
        per_token_s = self._observer.cost.coefficients.per_prefill_token_s
        short_s = _SHORT_LAXITY * self._observer.mean_ttft_target_s
        return any(
            0.0 <= hopeless_s(view, per_token_s) - now_s < short_s
            for view in views
        )

    def _order_victims(self, now_s: float) -> None:
        # Only when this step may run out of blocks; elsewhere the order is the policy's.
        scheduler = self._scheduler
        running = scheduler.running
        if len(running) < 2 or not self._is_short_of_blocks():
            return
        losses = {r.request_id: self._victim(r, now_s).loss() for r in running}
        ordered = sorted(running, key=lambda r: losses[r.request_id])
        # Chunk budget still goes by the policy: only the last ones change their place, and
        # those within the dwell, because a step may take more than the last ones.
        last = ordered[-max(1, len(ordered) // 8) :]
        marked = {r.request_id for r in last}
        rest = [r for r in running if r.request_id not in marked]
        self._would_be = running[-1]
        scheduler.running = sorted(rest, key=lambda r: losses[r.request_id][0]) + last

    def _victim(self, request: Any, now_s: float) -> Victim:
        track = self._observer.track(request)
        if track is None:
            return Victim(True, math.inf, math.inf, 1.0, request.num_computed_tokens)
        view, slo, computed = track.view, track.view.slo, request.num_computed_tokens
        late = track.first_token_s is None and now_s > view.deadline_s
        return Victim(
            lost=late or (slo.ttft_ms is None and slo.tpot_ms is None and slo.e2e_ms is None),
            since_preempted_s=now_s - track.preempted_s,
            remaining=track.expected_tokens - request.num_output_tokens,
            blocks=blocks_of(self._groups, computed),
            computed=computed,
        )

    def _max_active(self, limits: Limits, state: DecodeState | None, kept: int) -> int:
        # Holding back means: no request out of the queue. An empty batch always admits.
        running = len(self._scheduler.running)
        most = limits.max_active_requests
        if not running or not self._queue:
            return most
        if limits.kv_reserve > 0.0 and state is not None:
            view = self._queue.head_place()[0]
            need = blocks_of(self._groups, view.prompt_tokens + view.predicted_output_tokens)
            room = (1.0 - limits.kv_reserve) * self._envelope.kv_blocks
            if self.peak_blocks(state) + need > room:
                self._counts["kv_held_steps"] += 1
                return min(most, kept)
        return most
