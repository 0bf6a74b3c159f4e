"""How often may the rule agents move a knob? Holds, gaps, and a bound per minute, in one place.

A change needs time to show before the next one; a way back needs more of it than the way
there. Asked by the arbiter.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

PER_S = 60.0  # what the bound on calls is counted over
TooSoon = Literal["", "held", "too_soon", "too_many"]


@dataclass(frozen=True, slots=True)
class Hold:
    """Seconds after a knob's last change before it may go down, and up."""

    down_s: float
    up_s: float


# Fast where waiting hurts, slow on the way back: that is the hysteresis in time.
HOLDS: dict[str, Hold] = {
    "set_victim_choice": Hold(down_s=60.0, up_s=0.0),
    "set_kv_reserve": Hold(down_s=30.0, up_s=4.0),
    "set_tenant_buckets": Hold(down_s=30.0, up_s=10.0),
    "set_max_active_requests": Hold(down_s=4.0, up_s=10.0),
    "set_shed_share": Hold(down_s=10.0, up_s=6.0),
    "set_token_budget": Hold(down_s=6.0, up_s=20.0),
    "set_decode_pacing": Hold(down_s=10.0, up_s=4.0),
    "set_prefill_share": Hold(down_s=10.0, up_s=20.0),
    "set_long_prefill_threshold": Hold(down_s=10.0, up_s=20.0),
}


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
        hold = HOLDS[tool]
        hold_s = hold.up_s if step > 0 else hold.down_s
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
