"""How often may the rule agents move a knob? Holds, gaps, and a bound per minute.

A change needs time to show before the next one, and a way back needs more time than the way
there: each knob's row has its holds (`serving.contracts.limits`). Asked by the arbiter.
"""

import math
from collections import deque
from typing import Literal

from serving.rules import BY_TOOL

PER_S = 60.0  # what the bound on calls is counted over
TooSoon = Literal["", "held", "too_soon", "too_many"]


class CallRate:
    """Remembers when each tool changed something, on the engine's clock.

    Args:
        min_gap_s: between two calls of one tool, whichever way.
        max_calls_per_minute: of all tools together.
    """

    def __init__(self, min_gap_s: float, max_calls_per_minute: int) -> None:
        self._min_gap_s, self._most = min_gap_s, max_calls_per_minute
        self._last_s: dict[str, float] = {}
        self._calls_s: deque[float] = deque()

    def too_soon(self, tool: str, step: int, now_s: float) -> tuple[TooSoon, str]:
        """Whether a step up (1) or down (-1) must wait, and why; ("", "") when it may go."""
        since_s = now_s - self._last_s.get(tool, -math.inf)
        knob = BY_TOOL[tool]
        hold_s = knob.hold_up_s if step > 0 else knob.hold_down_s
        if since_s < hold_s:
            return "held", f"{since_s:.0f} s after its last change, {hold_s:g} s are to pass"
        if since_s < self._min_gap_s:
            return "too_soon", f"{since_s:.1f} s after its last call, of {self._min_gap_s:g} s"
        while self._calls_s and self._calls_s[0] <= now_s - PER_S:
            self._calls_s.popleft()
        if len(self._calls_s) >= self._most:
            return "too_many", f"{self._most} calls in the last {PER_S:.0f} s are the bound"
        return "", ""

    def note(self, tool: str, now_s: float) -> None:
        """A call of the tool goes through."""
        self._last_s[tool] = now_s
        self._calls_s.append(now_s)
