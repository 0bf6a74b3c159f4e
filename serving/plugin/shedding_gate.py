"""Which requests does this API server refuse, and what has the engine to be told of them?

One gate per API server, opened and closed by the totals that the plugin polls; the
middleware asks it. What is not heard of any more lapses, as the controller's lease does.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serving.contracts import Arrival, encode
from serving.shedding import Shedding

# Without totals for this long the engine is taken to want nothing refused.
LAPSE_S = 5.0
_PAGE = 500  # refusals told at once: noting them takes the engine's own time


class SheddingGate:
    """Refuses what the ranks' decisions say, and keeps the refusals until they are told.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._share, self._until_s = 0.0, 0.0
        self._rank = 0  # who notes the refusals
        self._shedding: Shedding | None = None
        self._untold: deque[dict[str, Any]] = deque()

    @property
    def share(self) -> float:
        """The share of sheddable requests that is refused now; 0 once nobody says so."""
        return self._share if self._clock() < self._until_s else 0.0

    def follow(self, totals: Sequence[Mapping[str, Any]]) -> None:
        """Take over the ranks' newest totals, as encoded: the least that any of them wants."""
        lasts_s = min((LAPSE_S, *(float(rank["lease_left_s"]) for rank in totals)))
        self._share = min((float(rank["shed"]) for rank in totals), default=0.0)
        self._until_s = self._clock() + lasts_s
        self._rank = min((int(rank["rank"]) for rank in totals), default=0)

    def refuses(self, slo_class: str, sheddable: Sequence[str]) -> bool:
        """Whether the next request of this class is refused; a server has one `sheddable`."""
        if self._shedding is None:
            self._shedding = Shedding(sheddable)
        return self._shedding.refuses(slo_class, self.share)

    def note(self, refused: Arrival) -> None:
        """A request was refused."""
        self._untold.append(encode(refused))

    def take_untold(self) -> dict[str, Any]:
        """The next page of refusals, as the engine method `totals` takes them; empty if none."""
        page = [self._untold.popleft() for _ in range(min(_PAGE, len(self._untold)))]
        return {"rank": self._rank, "refused": page} if page else {}

    def put_back(self, untold: Mapping[str, Any]) -> None:
        """A page that `take_untold` gave could not be told."""
        self._untold.extendleft(reversed(untold.get("refused", ())))
