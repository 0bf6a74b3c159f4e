"""Do workers keep order, name what failed, and leave no process behind?"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from evals.progress import CaseProgress
from evals.sim.workers import WorkerError, Workers
from tests.evals.worker_jobs import chatty, dying, failing, long, square
from tests.source_tree import ROOT


def run(function, items, jobs=2):
    with CaseProgress() as progress, Workers(jobs, progress) as workers:
        return workers.run(function, items, "job {}".format, lambda item, answer: f"{item}!")


def test_answers_come_in_order_and_each_end_is_told(capsys):
    assert run(square, [3, 1, 2]) == [9, 1, 4]
    assert sorted(capsys.readouterr().err.split()) == ["1!", "2!", "3!"]
    assert multiprocessing.active_children() == []


def test_workers_serve_for_several_runs():
    with CaseProgress() as progress, Workers(1, progress) as workers:
        for item in (2, 3):
            assert workers.run(square, [item], str, lambda *_: "") == [item * item]


def test_workers_do_not_write_to_standard_output(capfd):
    assert run(chatty, [1]) == [1]
    assert capfd.readouterr().out == ""


def test_a_failure_names_the_job_and_carries_the_traceback():
    with pytest.raises(WorkerError, match="job 7: LookupError: no 7") as error:
        run(failing, [5, 7, 8])
    cause = error.value.__cause__
    assert cause is not None
    assert "in failing" in str(cause.__cause__)
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_is_an_error_not_a_hang():
    with pytest.raises(WorkerError, match="died"):
        run(dying, [1])


def test_workers_end_when_their_parent_is_killed(tmp_path):
    file = tmp_path / "a"
    code = (
        "from tests.evals.sim.test_workers import run; from tests.evals.worker_jobs import long\n"
        f"run(long, [{str(file)!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        while not (file.exists() and file.read_text()):
            time.sleep(0.01)
        (worker,) = (
            each for each in psutil.Process(parent.pid).children()
            if each.pid == int(file.read_text())
        )  # fmt: skip
        parent.kill()
    gone, _ = psutil.wait_procs([worker], timeout=15)
    assert gone == [worker]
    assert file.read_text() != "over"


def test_an_interrupt_ends_the_workers_in_the_middle_of_their_jobs(tmp_path):
    files = [tmp_path / name for name in ("a", "b", "c")]

    def interrupt():
        while not all(file.exists() and file.read_text() for file in files[:2]):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run(long, [str(file) for file in files])
    assert multiprocessing.active_children() == []
    for file in files[:2]:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
    assert not files[2].exists()
