"""Why does memory that an engine leaves stay with the process? glibc is told so, by `mallopt(3)`.

Called by workers before their first job, by `hmas bench engine` and by `hmas teach`.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT_BYTES, _LARGEST_BYTES = 1 << 28, 1 << 25  # glibc allows no more of the second


def keep_freed_memory() -> None:
    """Keep what is freed for the next engine; without glibc, nothing happens.

    An engine has arrays of megabytes, and a process makes hundreds of engines. glibc gives such
    memory back to the system each time, and then each page of it comes with a fault: a third of
    the time in which an engine with a queue of 10,000 serves 1,000 requests.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
