"""Is memory that was freed used again without a page fault?"""

import subprocess
import sys

import pytest

ROUNDS = """
import resource
import numpy as np
from evals.sim.freed_memory import keep_freed_memory
{first}
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(3_000_000, np.int8) for _ in range(12)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 12 * 3_000_000 // 4096


def faults(first: str) -> int:
    """Of the last round, in a process of its own."""
    code = ROUNDS.format(first=first)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(told.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_the_next_engine_uses_what_the_last_one_left():
    assert faults("") > PAGES // 2, "or there is nothing to do"
    assert faults("keep_freed_memory()") < PAGES // 20
