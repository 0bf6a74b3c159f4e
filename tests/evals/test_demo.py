"""Does the demo's bookkeeping notice a request that was lost or counted twice?"""

from collections import Counter
from dataclasses import replace

import pytest

from evals.demo.run import check_books
from evals.result.metrics import CaseRun
from tests.evals.samples import outcome

BEFORE = {"received": Counter(a=5), "finished": Counter(a=4), "aborted": Counter(a=1)}
AFTER = {
    "received": Counter(a=7, hmas=3), "finished": Counter(a=5, hmas=3), "aborted": Counter(a=2),
}  # fmt: skip
RUNS = [
    CaseRun("s", 1.5, arm, [replace(outcome(0), tenant="a")], ()) for arm in ("vllm-fcfs", "hmas")
]


def test_balanced_books_name_nothing_whatever_else_the_engine_served():
    assert check_books(BEFORE, AFTER, RUNS) == []


@pytest.mark.parametrize("counter", list(AFTER))
@pytest.mark.parametrize("error", [-1, 1])
def test_a_miscounted_request_is_named_with_its_tenant(counter, error):
    counted = {name: Counter(tenants) for name, tenants in AFTER.items()}
    counted[counter]["a"] += error
    (mismatch,) = check_books(BEFORE, counted, RUNS)
    assert mismatch.startswith("a: 2 sent, ")
