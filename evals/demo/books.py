"""Do the books balance? Every request sent is counted once by the engine, under an epoch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from evals.live.totals import Totals
from evals.result.metrics import CaseRun
from serving.engines.protocol import Engine


@dataclass(frozen=True, slots=True)
class Books:
    """Client's and engine's counts of the replayed requests.

    Attributes:
        sent: requests of both arms by tenant, as the clients counted them.
        counted: what /metrics counted meanwhile, by counter and tenant (with the policy
            agent's own requests, under its own tenant).
        journalled: replayed requests found in the engine's journal, by arm.
        epochs: requests of the H-MAS arm by (epoch, policy) that admitted them; no
            policy means that they left before they were admitted.
    """

    sent: Counter[str]
    counted: Totals
    journalled: Counter[str]
    epochs: Counter[tuple[int, str]]

    @property
    def balanced(self) -> bool:
        """Nothing lost, nothing counted twice."""
        counted = self.counted
        return self.sent.total() == self.journalled.total() and all(
            sent == counted["received"][tenant]
            == counted["finished"][tenant] + counted["aborted"][tenant]
            for tenant, sent in self.sent.items()
        )  # fmt: skip

    def text(self) -> str:
        """The books in three lines."""
        counted = self.counted
        tenants = ", ".join(
            f"{t}: {self.sent[t]} sent, {counted['received'][t]} received = "
            f"{counted['finished'][t]} finished + {counted['aborted'][t]} aborted"
            for t in sorted(counted["received"])
        )
        epochs = ", ".join(
            f"{epoch} ({policy}): {count}" if policy else f"never admitted: {count}"
            for (epoch, policy), count in sorted(self.epochs.items())
        )
        return (
            f"books {'balanced' if self.balanced else 'NOT BALANCED'}: {self.sent.total()} sent "
            f"by both arms, {self.journalled.total()} in the engine's journal\n"
            f"  /metrics: {tenants}\n"
            f"  requests of the H-MAS arm by epoch: {epochs}"
        )


def check_books(
    engine: Engine, before: Totals, exported: Totals, runs: Sequence[CaseRun]
) -> Books:
    """Compare what the clients sent with the engine's journal and vLLM's /metrics.

    `before`: the engine's totals before the first arm; `exported`: those on /metrics now.
    """
    journalled: Counter[str] = Counter()
    epochs: Counter[tuple[int, str]] = Counter()
    cursor, page = 0, engine.journal(0)
    while page.cursor > cursor:
        for outcome in page.outcomes:
            # vLLM makes cmpl-REQUEST_ID-0-HASH of the id that the client sent.
            arm = next((r.arm for r in runs if f"-{r.arm}-r" in outcome.request_id), None)
            if arm is not None:
                journalled[arm] += 1
            if arm == "hmas":
                epochs[outcome.epoch, outcome.policy] += 1
        cursor, page = page.cursor, engine.journal(page.cursor)
    counted = {name: tenants - before[name] for name, tenants in exported.items()}
    sent = Counter(outcome.tenant for run in runs for outcome in run.outcomes)
    return Books(sent, counted, journalled, epochs)
