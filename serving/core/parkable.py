"""Which waiting requests may triage park? A list, so that it need not look at all that wait.

New ones join at the end. `triage` puts them into their places by deadline and drops those that may
be parked no more; the others are in order since the last time.
"""

import numpy as np

from serving.core.jit import compiled_in_place
from serving.core.standing import PARKED
from serving.core.state import EARLIER, LATER, NONE, Core


@compiled_in_place
def may_park(core: Core, row: int) -> bool:
    """Best-effort requests are not worth it, and whoever stands elsewhere already, stays there."""
    one = core.requests[row]
    return bool(not one.facts & ~PARKED and one.deadline_s < np.inf)


@compiled_in_place
def join(core: Core, row: int) -> None:
    """Put a request at the end of the list."""
    core.requests[row].listed = 1
    link(core, row, NONE)


@compiled_in_place
def link(core: Core, row: int, later: int) -> None:
    """Put a request before another one of the list; NONE is its end."""
    engine, neighbours = core.engine[0], core.neighbours
    earlier = engine.latest if later == NONE else neighbours[later, EARLIER]
    neighbours[row, EARLIER], neighbours[row, LATER] = earlier, later
    if earlier == NONE:
        engine.earliest = row
    else:
        neighbours[earlier, LATER] = row
    if later == NONE:
        engine.latest = row
    else:
        neighbours[later, EARLIER] = row


@compiled_in_place
def drop(core: Core, row: int) -> None:
    """Take a request out of the list."""
    engine, neighbours = core.engine[0], core.neighbours
    earlier, later = neighbours[row, EARLIER], neighbours[row, LATER]
    core.requests[row].listed = 0
    if engine.last_seen == row:
        engine.last_seen = earlier
    if earlier == NONE:
        engine.earliest = later
    else:
        neighbours[earlier, LATER] = later
    if later == NONE:
        engine.latest = earlier
    else:
        neighbours[later, EARLIER] = earlier
