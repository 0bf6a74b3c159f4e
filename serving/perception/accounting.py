"""What became of each request? Per-request timing, the journal, and tenant totals.

Driven by the scheduler hook (and by the simulator for stock vLLM, so that every
arm is measured by the same code). All memory is bounded.
"""

from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from serving.contracts import (
    SLO,
    Arrival,
    Deprioritised,
    Finish,
    JournalPage,
    Miss,
    Outcome,
    ResidentRequest,
    TenantCounters,
)
from serving.contracts.contract import OTHER
from serving.contracts.requests import meets_itl
from serving.perception.latencies import Latencies, slo_used
from serving.perception.length_model import Group
from serving.policies.base import RequestView

BEHIND: tuple[Deprioritised, ...] = ("over_share", "parked", "demoted")  # by standing, from 1


def judge(
    slo: SLO, queue_s: float | None, ttft_s: float | None, tpot_s: float | None, e2e_s: float,
    late_gaps: int = 0, gaps: int = 0,
) -> tuple[bool, Miss]:  # fmt: skip
    """Has a request met all its targets so far, and if not, which one did it miss first?

    Of its `gaps` between tokens `late_gaps` were longer than `slo.itl_ms`. A late first token
    counts as `ttft_queue` when half or more of the target was spent waiting, else as
    `ttft_execution`.
    """
    if ttft_s is None:
        return False, "not_served"
    if slo.ttft_ms is not None and ttft_s * 1000 > slo.ttft_ms:
        waited = queue_s is not None and queue_s * 1000 >= slo.ttft_ms / 2
        return False, "ttft_queue" if waited else "ttft_execution"
    if slo.tpot_ms is not None and tpot_s is not None and tpot_s * 1000 > slo.tpot_ms:
        return False, "tpot"
    if not meets_itl(late_gaps, gaps):
        return False, "itl"
    if slo.e2e_ms is not None and e2e_s * 1000 > slo.e2e_ms:
        return False, "e2e"
    return True, ""


@dataclass(slots=True)
class RequestTrack:
    """One request from arrival to its end."""

    view: RequestView
    max_tokens: int
    group: Group  # its histogram in the length model
    prompt_tokens: int  # cached or not; the view has the uncached ones
    cached_tokens: int = 0  # of the prompt, at arrival, then at the first admission
    prefix: tuple[int, ...] = ()  # as `Arrival` has it
    counted_as: str = ""  # the tenant in the totals
    counts: dict[str, int] = field(default_factory=dict)  # those totals
    histogram: int = 0  # of latencies
    admitted_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float = 0.0
    output_tokens: int = 0  # of a session, those of its present answer
    answer_s: float | None = None  # when the present answer began; a session has several
    earlier_tokens: int = 0  # of a session's answers before
    earlier_gaps: int = 0
    earlier_gaps_s: float = 0.0
    late_gaps: int = 0  # as `Outcome` has it, of all answers
    policy: str = ""
    epoch: int = 0
    preemptions: int = 0
    deprioritised: dict[Deprioritised, float] = field(default_factory=dict)  # as `Outcome` has it

    def remember(self, known: ResidentRequest) -> None:
        """Go on with what another engine knew of it."""
        self.admitted_s, self.preemptions = known.admitted_s, known.preemptions
        self.first_token_s = self.answer_s = known.first_token_s
        if known.running:  # what is cached now are its own tokens
            self.cached_tokens = known.cached_tokens

    def on_tokens(self, count: int, now_s: float) -> None:
        """`count` output tokens became visible at `now_s`."""
        self.begin_answer(now_s)
        self.last_token_s = now_s
        self.output_tokens += count

    def begin_answer(self, now_s: float) -> None:
        """An answer's first token came, unless it has begun already."""
        if self.answer_s is None:
            self.answer_s = now_s
        if self.first_token_s is None:
            self.first_token_s = now_s

    def end_answer(self, tokens: int, now_s: float) -> None:
        """A session's answer ended. Until its client goes on no token is due."""
        self.begin_answer(now_s)
        self.earlier_gaps += tokens - 1
        self.earlier_gaps_s += now_s - (self.answer_s or now_s)
        self.earlier_tokens += tokens
        self.answer_s, self.output_tokens, self.last_token_s = None, 0, 0.0

    def outcome(self, seq: int, finish: Finish, now_s: float) -> Outcome:
        """What came of the request. TPOT is the mean over tokens after an answer's first."""
        view, start_s = self.view, self.view.arrival_s
        first = self.first_token_s
        ttft_s = None if first is None else first - start_s
        queue_s = None if self.admitted_s is None else self.admitted_s - start_s
        tpot_s, e2e_s = self._tpot_s(finish, now_s), now_s - start_s
        gaps = self.earlier_gaps + max(0, self.output_tokens - 1)
        met, miss = judge(view.slo, queue_s, ttft_s, tpot_s, e2e_s, self.late_gaps, gaps)
        if finish == "aborted" and first is None:  # is the first token late by now?
            late = not judge(view.slo, queue_s, e2e_s, None, e2e_s)[0]
            met, miss = False, "not_served" if late else ""
        elif finish not in ("stop", "length", "aborted"):
            met, miss = False, miss or "not_served"
        return Outcome(
            seq=seq, request_id=view.request_id, arrival_s=start_s, finished_s=now_s,
            tenant=view.tenant, slo_class=view.slo_class, slo=view.slo,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.earlier_tokens + self.output_tokens,
            queue_s=queue_s, ttft_s=ttft_s, tpot_s=tpot_s, e2e_s=e2e_s,
            met=met, miss=miss, finish=finish, policy=self.policy, epoch=self.epoch,
            preemptions=self.preemptions, deprioritised=tuple(self.deprioritised.items()),
            cached_tokens=self.cached_tokens, late_gaps=self.late_gaps,
        )  # fmt: skip

    def _tpot_s(self, finish: Finish, now_s: float) -> float | None:
        gaps, gaps_s = self.earlier_gaps, self.earlier_gaps_s
        began_s, tokens = self.answer_s, self.output_tokens
        if began_s is not None and tokens > 1:
            gaps, gaps_s = gaps + tokens - 1, gaps_s + max(0.0, self.last_token_s - began_s)
        tpot_s = gaps_s / gaps if gaps else None
        if finish == "aborted" and began_s is not None and tokens:
            # As if the token that was still to come had come now: it may have been overdue.
            stalled_s = (self.earlier_gaps_s + now_s - began_s) / (self.earlier_gaps + tokens)
            tpot_s = max(stalled_s, tpot_s or 0.0)
        return tpot_s


def _no_counts() -> dict[str, int]:
    return defaultdict(int)


class Accounting:
    """Tracks requests inside the engine and keeps the journal, the totals and the histograms.

    Args:
        journal_size: events kept for readers that follow by sequence number.
        max_tenants: tenants counted apart, beside the listed ones. When there are so many, the
            counts of the one that was left longest ago move to `other`; while all of them have
            something inside, a further tenant is counted as `other`.

    Attributes:
        listed: tenants that the contract names: they are always counted apart.
    """

    def __init__(self, journal_size: int, max_tenants: int) -> None:
        self.listed: Collection[str] = ()
        self.tracks: dict[str, RequestTrack] = {}
        self._journal: deque[Arrival | Outcome] = deque(maxlen=journal_size)
        self.head = 0  # sequence number of the next event
        self._max_tenants = max_tenants
        self._inside: dict[str, int] = {}  # tenants counted apart, the last to arrive at the end
        # By tenant and SLO class, then by the fields of TenantCounters.
        self._counters: dict[tuple[str, str], dict[str, int]] = defaultdict(_no_counts)
        self.latencies = Latencies()

    def arrive(self, track: RequestTrack) -> None:
        """A request came in."""
        view = track.view
        self.tracks[view.request_id] = track
        track.counted_as = name = self._counted(view.tenant)
        if name != OTHER:
            self._inside[name] = self._inside.pop(name) + 1
        track.counts = self._counters[name, view.slo_class]
        track.histogram = self.latencies.group(name, view.slo_class)
        track.counts["received"] += 1
        arrival = Arrival(
            self.head, view.request_id, view.arrival_s, view.tenant, view.slo_class,
            view.slo, track.prompt_tokens, track.max_tokens, view.priority, track.cached_tokens,
            track.prefix,
        )  # fmt: skip
        self.append(arrival)

    def admit(self, track: RequestTrack, cached_tokens: int) -> None:
        """A request was admitted for the first time; so much of its prompt was cached."""
        track.cached_tokens = cached_tokens
        track.counts["prompt_tokens"] += track.prompt_tokens
        track.counts["cached_prompt_tokens"] += cached_tokens

    def leave(self, request_id: str, finish: Finish, now_s: float) -> Outcome | None:
        """A request left; None if it was not known (already left)."""
        track = self.tracks.pop(request_id, None)
        if track is None:
            return None
        outcome = track.outcome(self.head, finish, now_s)
        counts = track.counts
        counts["finished" if finish in ("stop", "length") else "aborted"] += 1
        counts["met"] += outcome.met
        counts["withdrawn"] += outcome.withdrawn
        counts["output_tokens"] += outcome.output_tokens
        self.append(outcome)
        self._measure(outcome, track.histogram)
        if track.counted_as != OTHER:
            self._inside[track.counted_as] -= 1
        return outcome

    def refuse(self, refused: Arrival, policy: str, epoch: int) -> None:
        """A request was turned away before it reached the engine: an arrival, and a miss."""
        self.append(replace(refused, seq=self.head))
        outcome = Outcome(
            seq=self.head, request_id=refused.request_id, arrival_s=refused.arrival_s,
            finished_s=refused.arrival_s, tenant=refused.tenant, slo_class=refused.slo_class,
            slo=refused.slo, prompt_tokens=refused.prompt_tokens, output_tokens=0,
            queue_s=None, ttft_s=None, tpot_s=None, e2e_s=0.0, met=False, miss="not_served",
            finish="rejected", policy=policy, epoch=epoch,
        )  # fmt: skip
        self.append(outcome)
        self._counters[self._counted(refused.tenant), refused.slo_class]["rejected"] += 1

    def page(self, cursor: int, limit: int) -> JournalPage:
        """Events with seq >= cursor, oldest first; tells how many were overwritten."""
        oldest = self.head - len(self._journal)
        start = max(cursor, oldest)
        if cursor > self.head:  # the reader followed an engine that has since restarted
            start = oldest
        skip = start - oldest
        stop = min(len(self._journal), skip + limit)
        events = [self._journal[i] for i in range(skip, stop)]
        return JournalPage(
            cursor=oldest + stop,
            lost=max(0, oldest - cursor),
            arrivals=tuple(event for event in events if isinstance(event, Arrival)),
            outcomes=tuple(event for event in events if isinstance(event, Outcome)),
        )

    def counters(self) -> tuple[TenantCounters, ...]:
        """Totals per tenant and SLO class, sorted."""
        found = sorted(self._counters.items())
        return tuple(TenantCounters(who, what, **counts) for (who, what), counts in found)

    def append(self, event: Arrival | Outcome) -> None:
        """Write an event into the journal, as the one that `head` numbers."""
        self._journal.append(event)
        self.head += 1

    def _counted(self, tenant: str) -> str:
        """The name that a tenant is counted under."""
        if tenant not in self._inside and tenant != OTHER:
            if tenant not in self.listed and not self._has_room():
                return OTHER
            self._inside[tenant] = 0
        return tenant

    def _has_room(self) -> bool:
        """Whether one more tenant can be counted apart, perhaps in the place of one that left."""
        if sum(name not in self.listed for name in self._inside) < self._max_tenants:
            return True
        gone = (name for name, n in self._inside.items() if not n and name not in self.listed)
        left = next(gone, None)
        if left is None:
            return False
        del self._inside[left]
        for key in [key for key in self._counters if key[0] == left]:
            for name, count in self._counters.pop(key).items():
                self._counters[OTHER, key[1]][name] += count
            self.latencies.move(key, (OTHER, key[1]))
        return True

    def _measure(self, outcome: Outcome, group: int) -> None:
        latencies = self.latencies
        latencies.observe("ttft_seconds", group, outcome.ttft_s)
        latencies.observe("queue_seconds", group, outcome.queue_s)
        used = slo_used(outcome.slo, outcome.ttft_s, outcome.tpot_s, outcome.e2e_s)
        latencies.observe("slo_used_ratio", group, used)
