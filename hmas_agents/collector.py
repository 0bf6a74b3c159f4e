"""When does Python look for garbage in a process that ticks? Called by `hmas run` and the bench.

Left alone it goes through everything alive every few minutes, the libraries' 190,000 objects and
the windows, in one go and in the middle of a tick.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def rare_collections() -> Iterator[None]:
    """Leave what is alive now out of every collection, and collect less often, until the end.

    Enter when the controller is built. A tick leaves few cycles behind (LangGraph's), so that
    memory grows little until the next collection.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
