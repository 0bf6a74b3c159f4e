"""What does the twin's process do? Answers one question after the other.

Started by `hmas_agents.twin.process` in a spawned process: compiled code keeps a thread's lock.
"""

import gc
import os
import signal
from dataclasses import replace
from multiprocessing.connection import Connection

from hmas_agents.twin.forecast import Forecasts
from hmas_agents.twin.question import Answer, Question
from hmas_agents.twin.search import search
from serving.engines.branches import warm_up

NICENESS = 10
READY = "ready"


def answer(question: Question) -> Answer:
    """Whatever goes wrong is a fault in the answer."""
    try:
        forecasts = Forecasts(question.situation, question.horizon_s)
        return replace(search(question, forecasts), offered=forecasts.offered)
    except Exception as error:  # noqa: BLE001  (reported to the controller, which goes on)
        return Answer(((),) * len(question.candidates), faults=(f"twin_failed: {error!r}",))


def serve(pipe: Connection) -> None:
    """Say READY; then answer each Question."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the controller to handle
    os.nice(NICENESS)
    warm_up()
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection has to go through it again
    pipe.send(READY)
    while True:
        try:
            question: Question = pipe.recv()
        except EOFError:
            return
        pipe.send(answer(question))
