"""Does the pool keep order, pass on progress and failures, and leave no process behind?"""

import multiprocessing

import pytest

from evals.workers import WorkerError, WorkerPool
from tests.evals.worker_jobs import chatty, dying, endless, failing, square


def ignore(*_):
    pass


def test_answers_come_in_order_and_progress_is_passed_on_once():
    progress, done = [], []
    with WorkerPool(2) as pool:
        answers = pool.map(square, [3, 1, 2], lambda i, n: progress.append((i, n)), ignore)
        again = pool.map(square, [5], ignore, lambda i, answer: done.append((i, answer)))
    assert answers == [9, 1, 4]
    assert again == [25]
    assert sorted(progress) == [(0, 3), (1, 1), (2, 2)]
    assert done == [(0, 25)]
    assert multiprocessing.active_children() == []


def test_workers_do_not_write_to_standard_output(capfd):
    with WorkerPool(1) as pool:
        assert pool.map(chatty, [1], ignore, ignore) == [1]
    assert capfd.readouterr().out == ""


def test_a_failure_names_the_error_and_carries_the_traceback():
    with pytest.raises(WorkerError, match="LookupError: no 7") as error:  # noqa: SIM117
        with WorkerPool(2) as pool:
            pool.map(failing, [7], ignore, ignore)
    assert "in failing" in "".join(error.value.__notes__)
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_is_an_error_not_a_hang():
    with pytest.raises(WorkerError, match="died"):  # noqa: SIM117
        with WorkerPool(1) as pool:
            pool.map(dying, [1], ignore, ignore)


def test_an_interrupt_ends_the_workers_and_lets_jobs_clean_up(tmp_path):
    started = []

    def interrupt(index, _):
        started.append(index)
        if len(started) == 2:
            raise KeyboardInterrupt

    files = [str(tmp_path / name) for name in ("a", "b")]
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with WorkerPool(2) as pool:
            pool.map(endless, files, interrupt, ignore)
    assert multiprocessing.active_children() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
