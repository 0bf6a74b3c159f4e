"""By how much is each step longer or shorter than the cost model says? Drawn once, by the seed.

Virtual engines alone use it: the twin's machine, fitted online, has no residuals, so the
controller never knows what a step will take.
"""

import numpy as np
from numpy.typing import NDArray

from serving.engines.profile import EngineProfile

STEPS = 1 << 14  # then they come again; a power of two, so that a mask finds a step's


def step_factors(profile: EngineProfile) -> NDArray[np.float64]:
    """What to multiply the time of the first steps by: shape (STEPS,), or (0,) without residuals.

    They are as the residuals are distributed, one from each of STEPS equal shares, in an order
    drawn by `profile.noise_seed`. So two engines of one profile have the same factors, and their
    mean is that of the residuals.
    """
    if not profile.residuals:
        return np.zeros(0)
    quantiles = 1.0 + np.array(profile.residuals)
    shares = (np.arange(STEPS) + 0.5) / STEPS
    factors = np.interp(shares, np.linspace(0.0, 1.0, len(quantiles)), quantiles)
    return np.random.default_rng(profile.noise_seed).permutation(factors)
