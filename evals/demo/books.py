"""Do the books balance? Every request sent is counted once by the engine, under an epoch."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from evals.metrics import CaseRun
from serving.engines.protocol import Engine

_SETTLE_S = 2.5  # vLLM's /metrics follows the engine once a second


@dataclass(frozen=True, slots=True)
class Books:
    """Client's and engine's counts of the replayed requests.

    Attributes:
        sent: requests of both arms, by tenant, as the clients counted them.
        received, finished, aborted: /metrics totals by tenant since the server started
            (they include the capacity measurement and the policy agent's own requests).
        journalled: replayed requests found in the engine's journal, by arm.
        epochs: served requests of the H-MAS arm by (epoch, policy); epoch 0 with no
            policy are those that left before they were served.
    """

    sent: dict[str, int]
    received: dict[str, int]
    finished: dict[str, int]
    aborted: dict[str, int]
    journalled: dict[str, int]
    epochs: dict[tuple[int, str], int]

    @property
    def balanced(self) -> bool:
        """Nothing lost, nothing twice: received = finished + aborted, all sent are journalled."""
        totals = all(
            self.received[t] == self.finished.get(t, 0) + self.aborted.get(t, 0)
            for t in self.received
        )
        return totals and sum(self.sent.values()) == sum(self.journalled.values())

    def text(self) -> str:
        """The books in three lines."""
        per_tenant = ", ".join(
            f"{t} {self.received[t]} = {self.finished.get(t, 0)} + {self.aborted.get(t, 0)}"
            for t in sorted(self.received)
        )
        epochs = ", ".join(
            f"{epoch} ({policy}): {count}" if policy else f"never served: {count}"
            for (epoch, policy), count in sorted(self.epochs.items())
        )
        state = "balanced" if self.balanced else "NOT BALANCED"
        return (
            f"books {state}: {sum(self.sent.values())} sent by the arms, "
            f"{sum(self.journalled.values())} in the engine's journal\n"
            f"  /metrics, received = finished + aborted: {per_tenant}\n"
            f"  H-MAS arm, requests by epoch: {epochs}"
        )


def check_books(engine: Engine, url: str, runs: Sequence[CaseRun]) -> Books:
    """Compare what the clients sent with the engine's journal and vLLM's /metrics."""
    time.sleep(_SETTLE_S)
    sent = Counter(outcome.tenant for run in runs for outcome in run.outcomes)
    journalled: Counter[str] = Counter()
    epochs: Counter[tuple[int, str]] = Counter()
    cursor = 0
    while True:
        page = engine.journal(cursor)
        for outcome in page.outcomes:
            # vLLM makes cmpl-REQUEST_ID-0-HASH of the id that the client sent.
            arm = next((r.arm for r in runs if f"-{r.arm}-r" in outcome.request_id), None)
            if arm is None:
                continue
            journalled[arm] += 1
            if arm == "hmas":
                epochs[outcome.epoch, outcome.policy] += 1
        if page.cursor == cursor:
            break
        cursor = page.cursor
    totals = {name: _total(url, f"hmas_requests_{name}") for name in
              ("received", "finished", "aborted")}  # fmt: skip
    return Books(dict(sent), totals["received"], totals["finished"], totals["aborted"],
                 dict(journalled), dict(epochs))  # fmt: skip


def _total(url: str, family_name: str) -> dict[str, int]:
    text = httpx.get(f"{url}/metrics", timeout=30, follow_redirects=True).text
    counted: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        if family.name == family_name:
            for sample in family.samples:
                counted[sample.labels["tenant"]] += int(sample.value)
    return dict(counted)
