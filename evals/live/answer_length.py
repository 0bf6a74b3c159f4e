"""Where does an answer end? At the length its client asks for, which the scheduler cannot see.

A logits processor for vLLM (`--logits-processors evals.live.answer_length:AnswerLength`). With
`max_tokens` as the true length, whoever schedules would know what no scheduler knows in service.
So a client sends a generous `max_tokens`, one stop token in `stop_token_ids`, and the true
length in `vllm_xargs` as `answer_tokens`, which nothing but this processor reads: until the last
token the stop token cannot be sampled, then nothing else can. Loaded inside vLLM's worker, under
both of its model runners; other requests are left alone.
"""

from typing import Any

import numpy as np
import torch
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SlotLogitsProcessor

from evals.live.request_body import ANSWER_TOKENS


def wanted_of(params: Any) -> int:
    """Tokens that a request's answer must have; 0 where the request does not say.

    Raises:
        ValueError: no whole number above 0, or not exactly one stop token beside it.
    """
    wanted = (params.extra_args or {}).get(ANSWER_TOKENS)
    if wanted is None:
        return 0
    if not isinstance(wanted, int) or wanted < 1 or len(params.stop_token_ids or ()) != 1:
        raise ValueError(
            f"{ANSWER_TOKENS} = {wanted!r}: expected a whole number above 0, and exactly one "
            "token in stop_token_ids"
        )
    return wanted


class AnswerLength(LogitsProcessor, SlotLogitsProcessor):
    """Ends answers at their wanted length.

    Args:
        _config: vLLM's.
        place: where logits are; the second model runner gives the state of its slots instead.
        _pinned: whether host memory is pinned; the second model runner does not say.
    """

    def __init__(self, _config: Any, place: Any, _pinned: bool = False) -> None:
        slots = None if isinstance(place, torch.device) else place
        self._device = place if slots is None else slots.device
        # First runner: (wanted, stop token, tokens so far as a list that grows) by row.
        self._rows: dict[int, tuple[int, int, list[int]]] = {}
        # Second runner, by slot: length of the prompt, wanted (0: nothing), stop token.
        most = 0 if slots is None else slots.max_num_reqs
        self._prompts = np.zeros(0, np.int32) if slots is None else slots.prompt_len.np
        self._wanted, self._stops = np.zeros(most, np.int64), np.zeros(most, np.int64)
        self._barred = self._index([], [])  # what must not be sampled yet

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request whose wanted length cannot be had (HTTP 400)."""
        wanted_of(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """No: it decides what is sampled, greedily too."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """First runner: follow which request is in which row."""

        def wanted(params: Any, _: Any, output_ids: list[int]) -> tuple[int, int, list[int]] | None:
            length = wanted_of(params)
            return (length, params.stop_token_ids[0], output_ids) if length else None

        if process_dict_updates(self._rows, batch_update, wanted):
            stops = [stop for _, stop, _ in self._rows.values()]
            self._barred = self._index(list(self._rows), stops)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Second runner: a request takes a slot. Returns whether it wants a length."""
        self._wanted[req_idx] = wanted = wanted_of(sampling_params)
        self._stops[req_idx] = sampling_params.stop_token_ids[0] if wanted else 0
        return wanted > 0

    def apply(self, logits: Any, context: Any = None) -> Any:
        """Change the logits (rows, vocabulary) in place."""
        if context is None:
            ends = [
                (row, stop) for row, (wanted, stop, ids) in self._rows.items()
                if len(ids) + 1 >= wanted
            ]  # fmt: skip
        else:
            ends = self._ends_in_slots(context)
        if len(self._barred[0]):
            logits[self._barred] = -torch.inf
        if ends:
            rows, stops = zip(*ends, strict=True)
            logits[list(rows)] = -torch.inf
            logits[self._index(rows, stops)] = 0.0
        return logits

    def _ends_in_slots(self, context: Any) -> list[tuple[int, int]]:
        slots = context.idx_mapping_np
        if len(context.expanded_idx_mapping) != len(slots):
            raise ValueError(f"{ANSWER_TOKENS} cannot be had with speculative decoding")
        rows = np.flatnonzero(self._wanted[slots])
        mine = slots[rows]
        self._barred = self._index(rows.tolist(), self._stops[mine].tolist())
        so_far = context.seq_lens_upper_bound_np[rows] - self._prompts[mine]
        last = so_far + 1 >= self._wanted[mine]
        return list(zip(rows[last].tolist(), self._stops[mine[last]].tolist(), strict=True))

    def _index(self, rows: Any, columns: Any) -> tuple[Any, Any]:
        return (
            torch.tensor(rows, dtype=torch.long, device=self._device),
            torch.tensor(columns, dtype=torch.long, device=self._device),
        )
