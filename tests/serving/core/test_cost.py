"""Is the cost model's fit the best one, and the same from Python and from a compiled loop?"""

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from serving.core import cost as core
from serving.core.jit import compiled_in_place
from serving.perception.cost_model import DEFAULT_COST, CostModel, StepShape


def problem(seed: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 5) and targets (n,) of a least-squares problem that is hard in its own way."""
    rng = np.random.default_rng(seed)
    rows = rng.uniform(0, 1, (rng.integers(1, 60), 5))
    if kind == "signed":
        rows = rng.normal(size=rows.shape)
    elif kind == "scales":
        rows *= 10.0 ** rng.uniform(-4, 4, 5)
    elif kind == "dependent":
        rows[:, 3] = rows[:, :3] @ rng.uniform(0, 1, 3)
        rows[:, 4] = 2 * rows[:, 1]
    elif kind == "nearly dependent":
        apart = 10.0 ** rng.uniform(-5, -1)
        rows[:, 3] = rows[:, 2] * (1 + apart * rng.normal(size=len(rows)))
        return rows, rows @ rng.uniform(1, 2, 5)  # all five are needed
    elif kind == "unseen":
        rows[:, rng.integers(0, 5, 2)] = 0.0
    elif kind == "one shape":
        rows[:] = rows[0]
    return rows, rows @ rng.normal(0.5, 1, 5) + rng.normal(0, 0.3, len(rows))


KINDS = ("plain", "signed", "scales", "dependent", "nearly dependent", "unseen", "one shape")


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_fit_is_that_of_lawson_and_hanson(kind, seed):
    rows, targets = problem(seed, kind)
    x, tried, root = np.empty(5), np.empty(5), np.empty((5, 5))
    core.non_negative_fit(rows.T @ rows, rows.T @ targets, x, tried, root)
    theirs, residual = nnls(rows, targets)
    assert (x >= 0).all()
    assert np.linalg.norm(rows @ x - targets) == pytest.approx(
        residual, rel=1e-9, abs=1e-7 * float(np.linalg.norm(targets))
    )
    if kind in {"plain", "signed", "scales"} and len(rows) >= 20:  # then there is only one
        assert x == pytest.approx(theirs, rel=1e-6, abs=1e-9 * theirs.max(initial=0.0))


def stream(seed: int, steps: int) -> np.ndarray:
    """Shapes and times (steps, 5) of a machine with noise, stalls and times that say nothing."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack([
        rng.integers(0, 2048, steps), rng.integers(0, 128, steps),
        rng.integers(0, 10**6, steps), rng.integers(0, 10**7, steps),
        np.zeros(steps),
    ])  # fmt: skip
    true = [5e-5, 2e-4, 6e-8, 2e-9]
    rows[:, 4] = (0.008 + rows[:, :4] @ true) * rng.normal(1.0, 0.1, steps)
    rows[::97, 4] *= 30.0
    rows[::89, 4] = 0.0
    return rows


@compiled_in_place
def learn_all(cost: Any, rows: Any) -> int:
    fits = 0
    for row in rows:
        shape = int(row[0]), int(row[1]), int(row[2]), int(row[3])
        if core.learn(cost, shape[0], shape[1], shape[2], shape[3], row[4]):
            fits += 1
    return fits


def test_a_compiled_loop_learns_bit_for_bit_what_python_does():
    rows = stream(3, 1000)
    model, array = CostModel(), core.new_cost(astuple(DEFAULT_COST))
    for *features, measured_s in rows.tolist():
        model.learn(StepShape(*(int(one) for one in features)), measured_s)
    assert learn_all(array, rows) > 20
    assert array.tobytes() == model.array.tobytes()
    shape = StepShape(100, 20, 30_000, 5_000)
    assert core.step_seconds(array, *astuple(shape)) == model.predict(shape)


def test_what_no_step_has_keeps_the_priors_cost_until_that_is_forgotten():
    array = core.new_cost([0.01, 1e-4, 1e-4, 0.0, 0.0])
    decodes = np.array([[0.0, 10.0, 0.0, 0.0, 0.02]])
    learn_all(array, np.repeat(decodes, 3_000, axis=0))
    assert array["per_prefill_token_s"][0] == pytest.approx(1e-4, rel=1e-3)
    assert core.step_seconds(array, 0, 10, 0, 0) == pytest.approx(0.02, rel=1e-3)
    learn_all(array, np.repeat(decodes, 17_000, axis=0))
    assert array["per_prefill_token_s"][0] == 0.0
    assert core.step_seconds(array, 0, 10, 0, 0) == pytest.approx(0.02, rel=1e-3)
