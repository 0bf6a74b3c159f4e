"""When is a policy choice due? Asked by the control loop after each short tick."""

from collections.abc import Iterable

from hmas_agents.config import ControlConfig

FIRST = "first"
TICK = "tick"
ENOUGH_ARRIVALS = 30  # fewer say nothing about what is to come


class LongTimer:
    """Remembers the last choice and which alarms have been answered.

    Args:
        config: periods.
    """

    def __init__(self, config: ControlConfig) -> None:
        self._config = config
        self._since_s: float | None = None
        self._decided = False
        self._standing: set[str] = set()
        self._unanswered: set[str] = set()

    def due(self, now_s: float, alarms: Iterable[str], arrivals: int) -> str:
        """Why a choice is due now: `first`, `tick`, or the new alarms; empty when none is.

        The first one does not wait for a whole period: a start policy that does not fit
        costs from the first minute on. An alarm that comes too soon after a choice is kept.
        """
        if self._since_s is None:
            self._since_s = now_s
        current = set(alarms)
        self._unanswered |= current - self._standing
        self._standing = current
        waited_s = now_s - self._since_s
        if not self._decided and arrivals >= ENOUGH_ARRIVALS:
            if waited_s >= self._config.first_tick_s:
                return FIRST
        elif self._decided and self._unanswered and waited_s >= self._config.alarm_gap_s:
            return ",".join(sorted(self._unanswered))
        return TICK if waited_s >= self._config.long_tick_s else ""

    def began(self, now_s: float) -> None:
        """A choice is under way: it answers every alarm so far."""
        self._since_s, self._decided = now_s, True
        self._unanswered.clear()

    def skipped(self, now_s: float) -> None:
        """A choice was due while another was under way: the next comes in its time.

        Alarms stay unanswered: what is being decided may not have seen them.
        """
        self._since_s = now_s
