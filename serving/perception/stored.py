"""Does a number that comes from a file fit into a model? Called by the models' `restore`."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def stored_array(
    state: Mapping[str, Any], key: str, shape: tuple[int, ...], *, largest: float
) -> np.ndarray:
    """`state[key]` as a new array of `shape`, its numbers between 0 and `largest`.

    Raises:
        ValueError: says what does not fit.
    """
    if key not in state:
        raise ValueError(f"{key} is missing")
    try:
        array = np.array(state[key], dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{key} is not an array of numbers") from error
    if array.size == 0 and 0 in shape:  # JSON does not keep the second length of (0, n)
        array = array.reshape(shape)
    if array.shape != shape:
        raise ValueError(f"{key} has the shape {array.shape}, not {shape}")
    if not (np.isfinite(array) & (array >= 0) & (array <= largest * (1 + 1e-9))).all():
        raise ValueError(f"{key} holds a number that is not between 0 and {largest:g}")
    return array


def stored_number(state: Mapping[str, Any], key: str, least: float, most: float) -> float:
    """`state[key]`, a number between `least` and `most`.

    Raises:
        ValueError: says what does not fit.
    """
    value = state.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{key} is {str(value)[:40]}, not a number between {least:g} and {most:g}")
    return float(value)
