"""Do the intervals hold the truth as often as they say? Counted where the truth is known.

`coverage` draws the figures of two arms from known distributions; `coverage_of_runs` runs one arm
twice, on disjoint seeds, so that the true difference is 0. Called by `hmas eval coverage` and the
tests.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from evals.arms.engine import build_simulated
from evals.machines.profile_file import load_profile
from evals.requests.sending import Block, Stream, Stretch
from evals.result.statistics import mean_interval, paired_difference, paired_ratio
from evals.suite.shapes import Lognormal
from serving.contracts import TraceRequest
from serving.contracts.settings import EngineSettings

SEEDS = (5, 20)
_ALIKE = 0.8  # correlation of two arms under one seed, before normals become something else
_MORE = 1.3  # mean of the other arm over that of the base
_PROFILE = "l40s_llama_8b"
_LENGTH_S = 50.0
_TENANT = Stream(
    TraceRequest(0.0, 1, 1, "t", "interactive"),
    (Stretch(0.0, _LENGTH_S, 100.0, "Gamma", 0.25, Lognormal(700, 2500, 8000),
             Lognormal(150, 400, 1000)),),
)  # fmt: skip

Floats = NDArray[np.float64]


def _heavy(z: Floats, draw: Generator) -> Floats:
    """Student's t with 3 degrees of freedom, around 10."""
    scale: Floats = np.sqrt(draw.chisquare(3, z.shape) / 3)
    return 10 + z / scale


def _gamma(z: Floats, draw: Generator) -> Floats:
    """Skewed seeds that both arms share, each with a noise of 20% of its own."""
    shared: Floats = draw.gamma(2.0, 1.0, z.shape[1:])
    return shared * (1 + 0.2 * z)


# From standard normals, shape (2, draws, n), correlated between the arms: figures of two arms,
# and the mean that both have.
FAMILIES: dict[str, tuple[Callable[[Floats, Generator], Floats], float]] = {
    "normal": (lambda z, _: 10 + 2 * z, 10.0),
    "lognormal, sigma 0.5": (lambda z, _: np.exp(0.5 * z), float(np.exp(0.125))),
    "lognormal, sigma 1": (lambda z, _: np.exp(z), float(np.exp(0.5))),
    "Student's t, 3 degrees": (_heavy, 10.0),
    "gamma, shape 2, 20% noise": (_gamma, 2.0),
}


def coverage(draws: int, seed: int = 0) -> pd.DataFrame:
    """Shares of intervals that hold the truth; columns data, n, mean, difference, ratio.

    Of `draws` experiments for each family and n.
    """
    draw = np.random.default_rng(seed)
    rows = [
        {"data": family, "n": n, **_held(family, n, draws, draw)}
        for n in SEEDS
        for family in FAMILIES
    ]
    return pd.DataFrame(rows)


def _held(family: str, n: int, draws: int, draw: Generator) -> dict[str, float]:
    z = draw.normal(size=(2, draws, n))
    z[1] = _ALIKE * z[0] + np.sqrt(1 - _ALIKE**2) * z[1]
    figures, mean = FAMILIES[family]
    base, other = figures(z, draw)
    held = {"mean": 0, "difference": 0, "ratio": 0}
    for a, b in zip(base, _MORE * other, strict=True):
        ratio = paired_ratio(a, b)
        held["mean"] += not mean_interval(a).excludes(mean)
        held["difference"] += not paired_difference(a, b).excludes((_MORE - 1) * mean)
        held["ratio"] += ratio is not None and not ratio.excludes(_MORE)
    return {figure: count / draws for figure, count in held.items()}


def coverage_of_runs(comparisons: int, n: int) -> float:
    """Share of intervals of attainment, one set of `n` seeds less another, that hold 0.

    Stock vLLM serves synthetic traffic near its capacity, where runs differ most.
    """
    attainment, held = _runs_of_stock(), 0
    for _ in range(comparisons):
        first, second = ([next(attainment) for _ in range(n)] for _ in range(2))
        held += not paired_difference(first, second).excludes(0.0)
    return held / comparisons


def _runs_of_stock() -> Iterator[float]:
    """Attainment under one seed after the other."""
    profile, settings, seed = load_profile(_PROFILE), EngineSettings(), 0
    while True:
        engine = build_simulated(profile, settings, True)
        outcomes = engine.run(_TENANT.send(1.0, Block(_LENGTH_S, seed)).requests())
        yield sum(outcome.met for outcome in outcomes) / len(outcomes)
        seed += 1
