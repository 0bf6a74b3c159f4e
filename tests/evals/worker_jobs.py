"""Jobs for the tests of the worker pool: they must be importable in a fresh process."""

import os
import signal
from pathlib import Path


def square(item: int, report) -> int:
    report(item)
    report(item)
    return item * item


def chatty(item: int, report) -> int:
    print("noise on standard output")
    os.system("echo more noise")
    return item


def failing(item: int, report) -> int:
    raise LookupError(f"no {item}")


def dying(item: int, report) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def endless(item: str, report) -> None:
    try:
        report(1)
        signal.pause()
    finally:
        Path(item).write_text("closed")
