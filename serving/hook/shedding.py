"""Which requests may be refused, and which of them are? Pure logic, no vLLM.

Called by the API server's gate and by the simulated engine, which refuse, and by the
snapshot, which counts the waiting requests that shedding is for.
"""

from collections.abc import Collection

import numpy as np

# A request without a deadline cannot miss it. Who has waited this long for best effort
# would rather have been told at once.
OVERDUE_S = 60.0
_WHOLE = 1.0 - 1e-9  # so that ten times a tenth is one


def is_in_vain(arrival_s: np.ndarray, laxity_s: np.ndarray, now_s: float) -> np.ndarray:
    """Which waiting requests came in vain: past the deadline, or without one and overdue.

    Shapes are (n,); laxity is infinite without a deadline.
    """
    return np.where(np.isfinite(laxity_s), laxity_s < 0, now_s - arrival_s > OVERDUE_S)


class Shedding:
    """Refuses a share of the requests of some classes, evenly: of a half, every other one.

    Weights do nothing: a request is answered when it comes, and nobody knows yet who comes next.

    Args:
        sheddable: the SLO classes that may be refused.
    """

    def __init__(self, sheddable: Collection[str]) -> None:
        self._sheddable = frozenset(sheddable)
        self._owed = 0.0  # refusals due, below one

    def refuses(self, slo_class: str, share: float) -> bool:
        """Whether the next request of this class is refused while `share` (0..1) of them are."""
        if share <= 0.0 or slo_class not in self._sheddable:
            return False
        self._owed += share
        if self._owed < _WHOLE:
            return False
        self._owed -= 1.0
        return True
