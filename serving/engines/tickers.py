"""What happens at regular times of a virtual clock? Called by engines in virtual time."""

import math
from collections.abc import Callable, Sequence

Ticker = tuple[float, Callable[[], None]]  # period in seconds, and what to call


class Tickers:
    """Calls each ticker once per period, between steps.

    Attributes:
        due_s: when each is to be called next, in seconds on the clock.
    """

    def __init__(self, tickers: Sequence[Ticker]) -> None:
        self._tickers = tickers
        self.due_s = [period_s for period_s, _ in tickers]

    def call_due(self, now_s: float) -> None:
        """Call the due ones; periods that have passed meanwhile are left out."""
        for i, (period_s, tick) in enumerate(self._tickers):
            if now_s >= self.due_s[i]:
                tick()
                # A multiple of the period may come out just below itself: 3 * 0.3 < 0.9.
                self.due_s[i] = (math.floor(now_s / period_s + 1e-6) + 1) * period_s
