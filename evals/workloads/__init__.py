"""Which trace formats can be read? Called by scenarios and the command line.

`FORMATS` maps a format's name to its reader; a new reader joins with one line.
"""

from collections.abc import Callable
from pathlib import Path

from evals.workloads import azure, burstgpt, mooncake
from evals.workloads.trace import Trace

FORMATS: dict[str, Callable[[Path], Trace]] = {
    "azure": azure.read,
    "mooncake": mooncake.read,
    "burstgpt": burstgpt.read,
}
