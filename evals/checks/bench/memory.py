"""How many bytes does a waiting request cost, in vLLM and in the hook? Called by the bench."""

import gc
import tracemalloc
from collections.abc import Sequence
from typing import Any

from serving.engines.stepped import SETTINGS, Arm, Clock, Draw

_JOURNAL_SIZE = 100  # the journal is bounded, so its part is not one of waiting requests


def memory_per_request(waiting: int = 4_000, seed: int = 0) -> dict[str, Any]:
    """Bytes per waiting request: vLLM's own object, its queue entry, and what the hook adds.

    The hook's part is everything that `add_request` leaves behind beyond stock's: view,
    track, queue entry, heap items. Prompts are lognormal with a median of 148 tokens.
    """
    draw = Draw(seed)
    drawn = [draw.request(draw.past()) for _ in range(waiting)]
    settings = SETTINGS.model_copy(update={"journal_size": _JOURNAL_SIZE})
    arms = {
        name: Arm(Clock(), hooked=name == "hook", running=1, settings=settings)
        for name in ("stock", "hook")
    }
    grown: dict[str, float] = {}
    tracemalloc.start()
    try:
        before = _traced()
        requests = {name: [one.build() for one in drawn] for name in arms}
        own = (_traced() - before) / (2 * waiting)
        for name, arm in arms.items():
            grown[name] = _growth(arm, requests[name]) / waiting
    finally:
        tracemalloc.stop()
    return {
        "waiting": waiting,
        "request_bytes": round(own),
        "stock_bytes": round(grown["stock"]),
        "hook_added_bytes": round(grown["hook"] - grown["stock"]),
        "hook_added_share": round((grown["hook"] - grown["stock"]) / (own + grown["stock"]), 3),
    }


def _growth(arm: Arm, requests: Sequence[Any]) -> int:
    before = _traced()
    for request in requests:
        arm.scheduler.add_request(request)
    return _traced() - before


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
