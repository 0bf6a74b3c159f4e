"""In which process do the clients of a replay run? In one of their own.

The controller's loop, bars and views share the caller's process. While they have its interpreter,
clients there would send late and take tokens for late.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from evals.live.load_generator import OnLeft, Replay
from evals.sim.workers import WorkerError, end_with_parent

Playing = partial[Coroutine[Any, Any, Replay]]


def played_apart(playing: Playing, on_left: OnLeft) -> Replay:
    """Run a replay in a process of its own, which ends with this call whatever happens.

    Args:
        playing: `replay` with all that it takes but `on_left`; picklable.
        on_left: of the replay, called here. However long it takes, clients do not wait for it.

    Raises:
        WorkerError: the process ended before the replay did; standard error has its traceback.
    """
    context = multiprocessing.get_context("spawn")  # not forked: this process has threads
    ours, theirs = context.Pipe(duplex=False)
    clients = context.Process(target=_play, args=(playing, theirs), daemon=True)
    clients.start()
    theirs.close()  # else the end of the process would not be the end of the pipe
    try:
        while not isinstance(told := ours.recv(), Replay):
            on_left(told)
        return told
    except EOFError as error:
        clients.join()
        raise WorkerError(
            f"the process of the clients ended early, with exit code {clients.exitcode}: "
            "is there enough memory?"
        ) from error
    finally:
        clients.terminate()
        clients.join()
        ours.close()


def _play(playing: Playing, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with suppress(PermissionError):  # real clients do not wait for the server's machine
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    threading.Thread(target=end_with_parent, daemon=True).start()
    with ThreadPoolExecutor(1) as teller:  # a full pipe holds up this thread, not the clients
        played = asyncio.run(playing(on_left=lambda each: teller.submit(pipe.send, each)))
        teller.submit(pipe.send, played).result()
