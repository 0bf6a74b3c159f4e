"""Jobs for the tests of the workers: they must be importable in a fresh process."""

import os
import signal
import time
from pathlib import Path


def square(item: int) -> int:
    return item * item


def chatty(item: int) -> int:
    print("noise on standard output")
    os.system("echo more noise")
    return item


def failing(item: int) -> int:
    if item == 7:
        raise LookupError(f"no {item}")
    return item


def dying(item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def long(item: str) -> None:
    """Write the id of this process to a file, and a word after 20 s."""
    Path(item).write_text(str(os.getpid()))
    time.sleep(20)
    Path(item).write_text("over")
