"""Where does a simulated controller's twin compute? In the case's own process.

Virtual time does not pass while it does, and a process of its own would cost each case
another 10 s of imports. Used by the arms with a control loop.
"""

from hmas_agents.situation import Situation
from hmas_agents.twin_worker import Ask, answer


class InlineForecaster:
    """Forecasts at once; there is nothing to start, to wait for, or to lose."""

    def __init__(self) -> None:
        self._situation: Situation | None = None

    def start(self) -> None:
        """See hmas_agents.twin_process.Forecaster."""

    def wait_ready(self, limit_s: float | None) -> bool:  # noqa: ARG002  nothing to wait for
        """See Forecaster."""
        return True

    def send(self, situation: Situation) -> None:
        """See Forecaster."""
        self._situation = situation

    def ask(self, ask: Ask, deadline_s: float | None) -> float | str:  # noqa: ARG002  as above
        """See Forecaster."""
        assert self._situation is not None
        return answer(self._situation, ask)

    def close(self) -> None:
        """See Forecaster."""
