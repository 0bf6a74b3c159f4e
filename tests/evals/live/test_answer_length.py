"""Does an answer end at its wanted length under both of vLLM's model runners, and no other?"""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

from evals.live.answer_length import AnswerLength
from evals.live.request_body import completion_body
from serving.contracts import TraceRequest

STOP, WORDS = 0, 5
CPU = torch.device("cpu")


def wanting(tokens, stop=STOP):
    return SamplingParams(
        max_tokens=50, stop_token_ids=[stop], ignore_eos=True, extra_args={"answer_tokens": tokens}
    )


PLAIN = SamplingParams(max_tokens=50)


def sampled(processor, rows, context=None):
    """What greedy sampling takes where the model likes to stop at once, and likes 3 next."""
    logits = torch.tensor([[9.0, 0.0, 0.0, 5.0, 1.0]] * rows)
    logits = processor.apply(logits) if context is None else processor.apply(logits, context)
    return logits.argmax(dim=1).tolist()


def joined(*added):
    """Requests join the batch: (row, params, tokens so far)."""
    rows = [(row, params, [7], tokens) for row, params, tokens in added]
    return BatchUpdate(len(rows), removed=(), added=rows, moved=())


def test_the_body_of_a_request_carries_what_the_processor_takes():
    body = completion_body("m", TraceRequest(0.0, 3, 4), 0, 0, max_tokens=9)
    params = SamplingParams(
        max_tokens=body["max_tokens"], stop_token_ids=body["stop_token_ids"],
        extra_args=body["vllm_xargs"],
    )  # fmt: skip
    AnswerLength.validate_params(params)
    first = AnswerLength(None, CPU)
    tokens: list[int] = []
    first.update_state(joined((0, params, tokens)))
    while not tokens or tokens[-1] != body["stop_token_ids"][0]:
        tokens += sampled(first, 1)
    assert len(tokens) == 4


def test_rows_end_each_at_their_own_length_and_others_are_left_alone():
    first = AnswerLength(None, CPU)
    long, short = [3, 3], [3]
    first.update_state(joined((0, wanting(3), long), (1, wanting(3), short), (2, PLAIN, [3])))
    assert sampled(first, 3) == [STOP, 3, STOP]  # the third stops because the model likes it
    first.update_state(None)
    short.append(3)
    assert sampled(first, 3) == [STOP, STOP, STOP]


def test_a_request_that_moves_or_leaves_takes_its_length_with_it():
    first = AnswerLength(None, CPU)
    first.update_state(joined((0, PLAIN, []), (1, wanting(9), [])))
    first.update_state(BatchUpdate(1, removed=(0,), added=(), moved=[
        (1, 0, MoveDirectionality.UNIDIRECTIONAL)
    ]))  # fmt: skip
    assert sampled(first, 2) == [3, STOP]
    first.update_state(BatchUpdate(1, removed=(), added=[(0, PLAIN, [7], [])], moved=()))
    assert sampled(first, 1) == [STOP]


def test_one_that_was_preempted_goes_on_where_it_was():
    first = AnswerLength(None, CPU)
    first.update_state(joined((0, wanting(3), [3, 3])))
    assert sampled(first, 1) == [STOP]


@dataclass
class Slots:
    """The second model runner: prompts of 10 tokens in four slots."""

    device: torch.device = CPU
    max_num_reqs: int = 4

    @property
    def prompt_len(self):
        return SimpleNamespace(np=np.full(self.max_num_reqs, 10))


def context(slots, lengths):
    """Requests of `slots` in this order, whose prompt and answer so far have so many tokens."""
    index = np.array(slots)
    nothing = torch.zeros(len(slots), dtype=torch.long)
    return LogitsContext(
        torch.tensor(slots), torch.tensor(slots), index, nothing, nothing, nothing,
        np.array(lengths),
    )  # fmt: skip


def test_slots_end_each_at_their_own_length_in_whatever_order_they_come():
    second = AnswerLength(None, Slots())
    assert second.add_request(2, wanting(3))
    assert second.add_request(1, wanting(2))
    assert not second.add_request(0, PLAIN)
    assert sampled(second, 3, context([1, 0, 2], [10, 10, 10])) == [3, STOP, 3]
    assert sampled(second, 3, context([2, 0, 1], [11, 11, 11])) == [3, STOP, STOP]
    assert sampled(second, 2, context([0, 2], [12, 12])) == [STOP, STOP]
    assert sampled(second, 1, context([2], [5])) == [3]  # in the middle of its prompt
    second.add_request(2, PLAIN)  # another one takes the slot
    assert sampled(second, 1, context([2], [10])) == [STOP]


def test_speculative_rows_are_refused():
    second = AnswerLength(None, Slots())
    second.add_request(0, wanting(3))
    rows = context([0, 0], [10, 10])
    with pytest.raises(ValueError, match="speculative"):
        second.apply(torch.zeros(2, WORDS), LogitsContext(
            rows.expanded_idx_mapping, rows.idx_mapping[:1], rows.idx_mapping_np[:1],
            rows.expanded_local_pos, rows.input_ids, rows.pos, rows.seq_lens_upper_bound_np[:1],
        ))  # fmt: skip


@pytest.mark.parametrize("tokens", [0, -1, 2.5, "many"])
def test_a_length_that_is_none_is_refused(tokens):
    with pytest.raises(ValueError, match="answer_tokens = "):
        AnswerLength.validate_params(wanting(tokens))


def test_without_one_stop_token_no_length_can_be_had():
    params = SamplingParams(extra_args={"answer_tokens": 3})
    with pytest.raises(ValueError, match="exactly one token in stop_token_ids"):
        AnswerLength.validate_params(params)
    AnswerLength.validate_params(PLAIN)
