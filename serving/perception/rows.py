"""Which row of the core's arrays is whose? Each request has one, from its arrival to its end."""

from typing import Any

import numpy as np

from serving.core.calls import addresses
from serving.core.state import Core, new_core, nobody, with_rows

_ROWS = 1024
_NOBODY = nobody()


class Rows:
    """The arrays, and the requests that have a row.

    Attributes:
        at: addresses of the core, for `serving.core.calls`; the same array when they change, so
            that nobody can have old ones.
        by_name: request id -> row.
        requests: vLLM's request of each row, None where the row is nobody's.
    """

    def __init__(self, lanes: int) -> None:
        self._core = new_core(_ROWS, lanes)
        self.at = addresses(self._core)
        self.by_name: dict[str, int] = {}
        self.requests: list[Any] = [None] * _ROWS
        self._free = list(range(_ROWS - 1, -1, -1))

    @property
    def core(self) -> Core:
        """The arrays; larger ones take their place when there are more requests or tenants."""
        return self._core

    @core.setter
    def core(self, core: Core) -> None:
        self.at[:] = addresses(core)
        self._core = core

    def open(self, request: Any) -> int:
        """A row for a request that has none; what it says is that nothing is known."""
        if not self._free:
            rows = len(self.requests)
            self.core = with_rows(self.core, 2 * rows)
            self.requests += [None] * rows
            self._free = list(range(2 * rows - 1, rows - 1, -1))
        row = self.by_name[request.request_id] = self._free.pop()
        self.requests[row] = request
        self.core.requests[row] = _NOBODY
        return row

    def see_running(self, running: list[Any]) -> np.ndarray:
        """Rows of the requests that run in this order, shape (n,).

        The core keeps them by what happens; they are looked up where it cannot have seen all.
        """
        core, count = self.core, len(running)
        if core.engine["running"][0] != count:
            core.running[:count] = [self.by_name[request.request_id] for request in running]
            core.engine["running"] = count
        return core.running[:count]

    def close(self, name: str) -> None:
        """The request has left; nothing happens if it has no row."""
        row = self.by_name.pop(name, None)
        if row is not None:
            self.requests[row] = None
            self._free.append(row)
