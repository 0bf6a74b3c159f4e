"""What does the running batch look like, in numbers? Arrays over the running requests.

Kept up to date by events (admitted, first token, left, preempted), so that a step
costs a few vector operations and no loop over the batch. Called by the observer;
read by step control and the snapshot.
"""

from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, cast

import numpy as np

from serving.accounting import RequestTrack
from serving.contracts import CostCoefficients
from serving.lanes import Lane
from serving.perception.cost_model import StepShape

_computed = attrgetter("num_computed_tokens")
_produced = attrgetter("num_output_tokens")
_RESYNC_STEPS = 256
_AT_LEAST_TOKENS = 16.0  # expected of an answer that has outgrown its prediction
_FOLLOW, _FOLLOW_ALL = 0.125, 0.05  # weight of a new figure: of one request, of the batch
_LEAST_TURNS = 0.05
_ROUND = 4.0  # tokens per step are told apart by quarters, so that few paces differ
_known = attrgetter("num_tokens")


@dataclass(slots=True, eq=False)
class _Prefill:
    request: Any
    track: RequestTrack
    seen: int  # output tokens before this prefill


@dataclass(frozen=True, slots=True)
class DecodeState:
    """The running requests at one moment; arrays of shape (running,).

    Attributes:
        decoding: which of them produce tokens.
        slack_s: time until the tokens of the next step are due at the TPOT target's pace,
            counted from the first token, so that time saved earlier may be spent; infinite
            without a target or before the first token.
        remaining: predicted tokens still to come.
        tokens: of prompt and answer so far, in flight included.
        tpot_s: its target, 0 without one.
        tokens_per_step: that each gets, as measured; more than 1 where vLLM speculates, less
            where pipeline parallelism spreads the batch over several steps.
        turns: share of the decodes that a step takes along, 1 without pipeline parallelism.
    """

    decoding: np.ndarray
    slack_s: np.ndarray
    remaining: np.ndarray
    tokens: np.ndarray
    tpot_s: np.ndarray
    tokens_per_step: np.ndarray | float = 1.0
    turns: float = 1.0

    @property
    def shape(self) -> StepShape:
        """The decode part of the coming step."""
        return StepShape(
            decodes=round(self.turns * self.decoding.sum()),
            decode_context=int(self.turns * self.tokens[self.decoding].sum()),
        )

    def recoverable(self, cost: CostCoefficients) -> np.ndarray:
        """Which decodes could still reach their mean TPOT if only decodes ran from now on."""
        spare_s = self.tpot_s - self.shape.seconds(cost) / self.tokens_per_step
        in_time = self.slack_s + self.remaining * spare_s >= 0.0
        return cast("np.ndarray", in_time & np.isfinite(self.slack_s))


class Batch:
    """The running requests in arrays; slots are reused by swapping the last one in.

    Args:
        drafts: draft tokens per decode, where vLLM speculates.
        pipelined: whether several steps are in flight, each with other requests.

    Attributes:
        tokens_per_decode: that a decode got when it took part in a step, on average.
        turns: share of the decodes that a step takes along, on average.
        silent: decodes that the last step gave no token (they were not in it), by lane.
    """

    def __init__(self, drafts: int = 0, *, pipelined: bool = False) -> None:
        self._requests: list[Any] = []
        self._lanes: list[Lane] = []
        self._slots: dict[str, int] = {}
        # prompt, start of decoding, first token's time, TPOT target, expected answer,
        # tokens seen, time of the last one, group in the histograms, tokens per decode
        self._columns = np.zeros((64, 9))
        self._prefills: dict[str, _Prefill] = {}
        self._context = 0  # sum of computed tokens over the batch
        self._steps = 0
        self.silent: Counter[Lane] = Counter()
        self.resting = 0  # decodes that skip the coming step
        self._drafts = drafts
        # Rejected draft tokens are taken back unseen.
        self._resync_steps = 1 if drafts else _RESYNC_STEPS
        self._pipelined = pipelined
        self.tokens_per_decode = self.turns = 1.0
        self._gains, self._turned = 0, 4  # steps that each of the two counts for

    def __len__(self) -> int:
        return len(self._requests)

    def admit(
        self, request: Any, track: RequestTrack, lane: Lane, scheduled: int, group: int = 0
    ) -> None:
        """A request was scheduled (so many tokens) for the first time, or after a preemption.

        `group` is its number in the histograms.
        """
        if request.request_id in self._slots:
            return
        slot = len(self._requests)
        if slot == len(self._columns):
            self._columns = np.concatenate([self._columns, np.zeros((slot, 9))])
        self._requests.append(request)
        self._lanes.append(lane)
        lane.running += 1
        self._slots[request.request_id] = slot
        first_s, tpot_ms = track.answer_s, track.view.slo.tpot_ms
        row = self._columns[slot]
        row[0], row[1] = request.num_prompt_tokens, request.num_tokens
        row[2] = np.inf if first_s is None or tpot_ms is None else first_s
        row[3] = 0.0 if tpot_ms is None else tpot_ms / 1000
        row[4] = track.expected_tokens
        seen = request.num_output_tokens
        row[5], row[6], row[7] = seen, track.last_token_s, group
        row[8] = self.tokens_per_decode
        self._prefills[request.request_id] = _Prefill(request, track, seen)
        self._context += request.num_computed_tokens - scheduled

    def remove(self, request: Any) -> tuple[int, float]:
        """A request was preempted or is being freed; nothing happens if it did not run.

        Returns:
            Its number in the histograms, and when its last token came; 0.0 without a token.
        """
        slot = self._slots.pop(request.request_id, None)
        if slot is None:
            return 0, 0.0
        group, last_s = int(self._columns[slot, 7]), float(self._columns[slot, 6])
        self._lanes[slot].running -= 1
        if self._prefills.pop(request.request_id, None) is None:
            self._lanes[slot].decoding -= 1
        self._context -= request.num_computed_tokens
        last, last_lane = self._requests.pop(), self._lanes.pop()
        if slot < len(self._requests):
            self._requests[slot], self._lanes[slot] = last, last_lane
            self._columns[slot] = self._columns[len(self._requests)]
            self._slots[last.request_id] = slot
        return group, last_s

    def sit_out(self, mask: np.ndarray) -> list[Any]:
        """Leave these out of the coming step, as far as they may be; the mask loses the others.

        Requests that wait for a first token or have a LoRA go on: vLLM counts the LoRAs of
        the requests that it sees. None skip once `resting` is 0.

        Args:
            mask: over the arrays of `state`.
        """
        for slot in mask.nonzero()[0]:
            request = self._requests[slot]
            mask[slot] = request.lora_request is None and request.request_id not in self._prefills
        rest = [self._requests[slot] for slot in mask.nonzero()[0]]
        self.resting = len(rest)
        return rest

    def partial_prefills(self) -> set[str]:
        """Ids of running requests of which some prompt is still to be computed."""
        return {
            name for name, one in self._prefills.items() if one.request.is_prefill_chunk
        }

    def step_shape(self, counts: dict[str, int], total_tokens: int) -> StepShape:
        """Shape of the step that has just been scheduled; admitted requests included.

        Args:
            counts: request id -> tokens of this step.
            total_tokens: their sum.
        """
        self._steps += 1
        if self._steps % self._resync_steps == 0:
            self._context = sum(map(_computed, self._requests))
        else:
            self._context += total_tokens
        prefill = square = chunks = beside = starting = 0
        for name, one in self._prefills.items():
            computed = one.request.num_computed_tokens
            count = counts.get(name, 0)
            if count:
                starting += 1
                beside += computed
            if count and computed - count < one.request.num_tokens:
                prefill += count
                square += count * (computed - count)
                chunks += 1
        answering = len(counts) - starting
        could = len(self._requests) - len(self._prefills) - self.resting
        if self._pipelined and could > 0:
            self._turned += 1
            weight = max(_FOLLOW_ALL, 1.0 / self._turned)
            share = min(1.0, answering / could)
            self.turns = max(_LEAST_TURNS, self.turns + weight * (share - self.turns))
        context = self._context
        if len(counts) < len(self._requests):  # some skip this step, or are in another one
            slots = self._slots
            context = sum(
                self._requests[slots[name]].num_computed_tokens for name in counts if name in slots
            )
        return StepShape(prefill, len(counts) - chunks, max(0, context - beside), square)

    def first_tokens(self, now_s: float) -> None:
        """Note whose first token (or first one after a preemption) a finished step produced."""
        for name, one in list(self._prefills.items()):
            if one.request.num_output_tokens > one.seen:
                del self._prefills[name]
                slot = self._slots[name]
                self._lanes[slot].decoding += 1
                if one.track.answer_s is None:
                    one.track.begin_answer(now_s)
                    if one.track.view.slo.tpot_ms is not None:
                        self._columns[slot, 2] = now_s

    def gaps(self, now_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Groups and inter-token gaps (seconds), shape (n,), of requests that a step gave tokens.

        Several tokens of one step have one gap, as in vLLM's own metric; a first token has none.
        """
        count = len(self._requests)
        rows = self._columns[:count]
        seen = np.fromiter(map(_produced, self._requests), np.float64, count)
        grown = seen > rows[:, 5]
        later = grown & (rows[:, 6] > 0.0)
        groups, gaps_s = rows[later, 7].astype(int), now_s - rows[later, 6]
        if self._drafts and len(groups):
            gained = seen[later] - rows[later, 5]
            rows[later, 8] += _FOLLOW * (gained - rows[later, 8])
            self._gains += 1
            weight = max(_FOLLOW_ALL, 1.0 / self._gains)
            self.tokens_per_decode += weight * (float(gained.mean()) - self.tokens_per_decode)
        rows[grown, 5], rows[grown, 6] = seen[grown], now_s
        self.silent = Counter(
            self._lanes[slot]
            for slot in np.flatnonzero(~grown)
            if self._requests[slot].request_id not in self._prefills
        )
        return groups, gaps_s

    def state(self, start_s: float) -> DecodeState:
        """The batch as of `start_s`, when the coming step will begin."""
        count = len(self._requests)
        prompt, start, first_s, tpot_s, expected = self._columns[:count, :5].T
        gains: np.ndarray | float = 1.0
        tokens = np.fromiter(map(_computed, self._requests), np.float64, count)
        decoding = tokens >= start
        produced = np.maximum(tokens - prompt + 1.0, 0.0)
        if self._drafts:  # not all drafts in flight will be right
            known = np.fromiter(map(_known, self._requests), np.float64, count)
            gains = np.maximum(np.round(self._columns[:count, 8] * _ROUND) / _ROUND, 1.0)
            in_flight = np.where(decoding, np.maximum(tokens + 1.0 - known, 0.0), 0.0)
            produced -= in_flight * (1.0 - gains / (1.0 + self._drafts))
        per_step: np.ndarray | float = gains * self.turns
        due_s = first_s + tpot_s * (produced + per_step - 1.0)
        slack_s = np.where(decoding, due_s - start_s, np.inf)
        remaining = np.maximum(expected - produced, _AT_LEAST_TOKENS)
        held = np.maximum(tokens, start)
        return DecodeState(decoding, slack_s, remaining, held, tpot_s, per_step, self.turns)
