"""Does the demo's bookkeeping notice a request that was lost or counted twice?"""

from collections import Counter
from dataclasses import replace

import pytest

from evals.demo.books import Books, check_books
from evals.live.totals import Totals
from evals.result.metrics import CaseRun
from serving.contracts import JournalPage
from tests.evals.samples import outcome
from tests.fakes import FakeEngine


def balanced_books() -> Books:
    counted = {"received": Counter(a=2), "finished": Counter(a=1), "aborted": Counter(a=1)}
    return Books(Counter(a=2), counted, Counter(hmas=2), Counter({(2, "slide"): 2}))


def test_balanced_books_say_so():
    assert balanced_books().balanced
    assert "books balanced: 2 sent" in balanced_books().text()


@pytest.mark.parametrize("counter", ["received", "finished", "aborted"])
@pytest.mark.parametrize("error", [-1, 1])
def test_a_miscounted_request_unbalances_the_books(counter, error):
    good = balanced_books()
    counted = {name: Counter(tenants) for name, tenants in good.counted.items()}
    counted[counter]["a"] += error
    assert not replace(good, counted=counted).balanced


def test_a_request_missing_from_the_journal_unbalances_the_books():
    assert not replace(balanced_books(), journalled=Counter(hmas=1)).balanced


def test_only_replayed_requests_are_looked_up_and_only_once():
    ids = ["cmpl-s-1.5-hmas-r0-0-ab", "cmpl-s-1.5-vllm-fcfs-r0-0-ab", "cmpl-capacity-c1-0-ab"]
    seen = tuple(
        replace(outcome(i), request_id=name, policy="slide", epoch=2)
        for i, name in enumerate(ids)
    )

    class Journalling(FakeEngine):
        def journal(self, cursor, limit=5000):
            return JournalPage(cursor=3, lost=0, outcomes=seen if cursor == 0 else ())

    runs = [CaseRun("s", 1.5, arm, [outcome(0)], ()) for arm in ("vllm-fcfs", "hmas")]
    none: Totals = {name: Counter() for name in ("received", "finished", "aborted")}
    found = check_books(Journalling(), none, none, runs)
    assert found.journalled == Counter({"hmas": 1, "vllm-fcfs": 1})
    assert found.epochs == Counter({(2, "slide"): 1})
