"""Does compiled code find the same arrays at their addresses, also after these have grown?"""

import numpy as np

from serving.contracts import CostCoefficients
from serving.core.calls import addresses, admit, core_at, lengths_at, note_scheduled
from serving.core.state import Core, new_core, with_lanes, with_rows
from serving.perception.lanes import Lanes
from serving.perception.length_model import LengthModel
from tests.serving.core.samples import Running, batch_of

NO_TOKENS = np.zeros(0, np.int64)


def holds_the_same(at: np.ndarray, core: Core) -> bool:
    """Whether each array at the addresses is the core's own, of the same shape and type."""
    return all(
        found.ctypes.data == mine.ctypes.data
        and (found.shape, found.dtype) == (mine.shape, mine.dtype)
        for found, mine in zip(core_at(at), core, strict=True)
    )


def test_the_arrays_at_the_addresses_are_the_cores():
    core = new_core(8, 2)
    other = with_lanes(with_rows(core, 32), 5)
    assert holds_the_same(addresses(core), core)
    assert holds_the_same(addresses(other), other)
    assert not holds_the_same(addresses(other), core)


def test_whoever_holds_the_addresses_has_the_new_ones_when_the_arrays_grow():
    rows = Lanes({}, {}, 4).rows
    at, before = rows.at, rows.core
    rows.core = with_rows(before, 2 * len(before.requests))
    assert at is rows.at
    assert holds_the_same(at, rows.core)
    assert not holds_the_same(at, before)


def test_the_length_model_is_found_also_after_another_one_was_restored():
    model = LengthModel()
    model.learn(model.group("t", 100, 100), 50)
    for _ in range(2):
        found = lengths_at(model.at)
        assert [one.ctypes.data for one in found] == [one.ctypes.data for one in model.arrays]
        model.restore(model.state())


def test_those_that_begin_behind_hidden_ones_compute_their_own_tokens():
    core = batch_of([Running()] * 3, CostCoefficients(0.01, 1e-4, 1e-4))
    core.requests["hidden"][1], core.requests["max_tokens"][3:5] = 1, 100
    before, model, at = core.requests["computed_tokens"].copy(), LengthModel(), addresses(core)
    for row, tokens in ((3, 7), (4, 5)):
        assert admit(at, row, 20, 0, 0, tokens, model.at, 0)
    noted, (prefill_tokens, decodes, _, _), full = note_scheduled(at, 4, 2, NO_TOKENS, False)
    assert (noted, prefill_tokens, decodes, full) == (True, 12, 2, True)
    assert (core.requests["computed_tokens"] - before)[:5].tolist() == [1, 0, 1, 7, 5]
    assert not note_scheduled(at, 5, 0, NO_TOKENS, False)[0], "others run than the core has seen"
