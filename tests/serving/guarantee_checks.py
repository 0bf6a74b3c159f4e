"""Which guarantees must hold, whatever happens to an engine? One check each.

The base of `guarantee_machine`, which makes things happen.
"""

import re
from collections import Counter
from typing import ClassVar

from hypothesis import note
from hypothesis.stateful import RuleBasedStateMachine, invariant

from serving.contracts import Decision
from serving.contracts.settings import EngineSettings
from serving.policies import POLICIES
from tests.serving.driven_scheduler import Driven, Seen, machine
from tests.serving.guarantee_inputs import FLOOR, MAX_WAIT_S, SETTINGS

PLANTED = re.compile(r"policy \w+, now fcfs: ValueError: a key is no number, and has no order")
# Under a policy that shares, whoever floods would outrank everybody once its own queue is
# old: there the ceiling holds within a tenant, and the shares between tenants.
SHARED_CEILING = False


class Guarantees(RuleBasedStateMachine):
    """A hooked scheduler, what is known of its lease, and the checks."""

    total: ClassVar[Counter[str]] = Counter()  # over all examples, to be printed
    settings: ClassVar[EngineSettings] = SETTINGS  # what the engine is really given

    def __init__(self) -> None:
        super().__init__()
        self.driven = Driven(self.settings, machine())
        self.scheduler = self.driven.scheduler
        self.default = self.scheduler.hmas_snapshot()
        self.owner, self.ends_s, self.epoch = "", 0.0, 0
        self.paused = False
        self.backlog_work: float | None = None  # what the floor promised, less what was done
        self.work_seen: Counter[str] = Counter()
        self.total["examples"] += 1
        self.sabotage()

    def sabotage(self) -> None:
        """Planted bugs go here."""

    @invariant()
    def the_guarantees_hold(self):
        self.no_request_is_lost()
        self.limits_stay_inside_the_envelope()
        self.the_default_comes_back_when_the_lease_ends()
        self.epochs_only_grow()
        self.only_the_planted_fault_is_counted()
        self.memory_is_bounded()

    def decide(self, decision: Decision) -> bool:
        """Limits end inside the envelope, epochs only grow, and one controller owns the engine."""
        held, now_s = self.holds_lease(), self.driven.now_s
        ack = self.scheduler.hmas_apply(decision)
        note(f"{ack}")
        shot = self.scheduler.hmas_snapshot()
        if not ack.accepted:
            assert ack.reason
            return False
        assert not held or decision.controller_id == self.owner, "one controller at a time"
        assert decision.controller_id
        assert self.epoch < decision.epoch == ack.epoch == shot.epoch, "epochs only grow"
        assert 0 < decision.ttl_s <= 24 * 3600
        assert decision.policy in POLICIES
        self.owner, self.ends_s = decision.controller_id, now_s + decision.ttl_s
        self.epoch = decision.epoch
        return True

    def holds_lease(self) -> bool:
        return bool(self.owner) and self.driven.now_s < self.ends_s

    def let_the_lease_end(self) -> None:
        if self.owner:
            self.driven.now_s = max(self.driven.now_s, self.ends_s)
        self.epoch = self.scheduler.hmas_snapshot().epoch  # going back to the default is one, too

    def check_step(self, seen: Seen) -> None:
        """What one step must show."""
        envelope = self.default.envelope
        assert seen.tokens <= envelope.token_budget, "limits stay inside the envelope"
        assert len(self.scheduler.running) <= envelope.max_active_requests
        self.none_is_starved(seen)
        self.a_floor_is_kept(seen)

    def none_is_starved(self, seen: Seen) -> None:
        """Who has waited beyond the ceiling starts before all others not owed to a floor."""
        gone = {id(guest) for guest in (*seen.admitted, *seen.resumed)}
        left = [guest for guest in seen.waiting if id(guest) not in gone]
        starved = [g for g in left if seen.now_s > g.arrival_s + MAX_WAIT_S + 1e-6]
        if not starved:
            return
        apart = seen.shares and not SHARED_CEILING
        passed_by = [
            guest for guest in seen.admitted
            if any(
                one.arrival_s < guest.arrival_s and not (apart and one.lane != guest.lane)
                for one in starved
            )
        ]  # fmt: skip
        owed = [guest for guest in passed_by if guest.tenant == "floored"]
        assert len(passed_by) <= min(len(owed), seen.floor_served), (
            f"{[g.request.request_id for g in passed_by]} went before "
            f"{[g.request.request_id for g in starved]}, who had waited beyond the ceiling"
        )

    def a_floor_is_kept(self, seen: Seen) -> None:
        """While a tenant has requests waiting, it gets its floor of all work, within a bound."""
        work, self.work_seen = self.driven.work - self.work_seen, Counter(self.driven.work)
        if not any(guest.tenant == "floored" for guest in seen.waiting):
            self.backlog_work = None
            return
        if self.backlog_work is None:  # its backlog begins, and a new account with it
            self.backlog_work = 0.0
            return
        self.backlog_work += FLOOR * work.total() - work["floored"]
        # Served beyond its floor is not held against it.
        self.backlog_work = max(0.0, self.backlog_work)
        assert self.backlog_work <= floor_bound(), "the tenant's floor was not kept"

    def no_request_is_lost(self) -> None:
        """ResidentRequest or left, exactly once; and inside means: waits or runs, not both."""
        driven, scheduler = self.driven, self.scheduler
        assert all(g.ends == (n not in driven.inside) for n, g in driven.guests.items())
        own = ("kv_holding_waiting", "skipped_waiting")  # vLLM's, from and up to 0.30
        queues = [scheduler.running, scheduler.waiting]
        queues += [getattr(scheduler, name) for name in own if hasattr(scheduler, name)]
        places = Counter(request.request_id for queue in queues for request in queue)
        assert places == Counter(driven.inside.keys()), "a request was lost, or is there twice"
        assert sum(map(len, queues)) == len(driven.inside)
        counters = scheduler.observer.accounting.counters()
        received, served, aborted = (
            sum(getattr(row, name) for row in counters)
            for name in ("received", "finished", "aborted")
        )
        assert (received, served + aborted) == (
            len(driven.guests), len(driven.guests) - len(driven.inside)
        )  # fmt: skip

    def limits_stay_inside_the_envelope(self) -> None:
        shot, limits = self.default.envelope, self.scheduler.hmas_snapshot().limits
        inside = (
            1 <= limits.max_active_requests <= shot.max_active_requests
            and 1 <= limits.token_budget <= shot.token_budget
            and 0 <= limits.long_prefill_threshold <= shot.max_model_len
            and limits.max_partial_prefills >= 0
            and 0.0 <= limits.prefill_share <= 0.9
        )
        assert inside, f"{limits} is outside the envelope {shot}"

    def the_default_comes_back_when_the_lease_ends(self) -> None:
        shot, default = self.scheduler.hmas_snapshot(), self.default
        if self.holds_lease():
            assert (shot.controller_id, shot.epoch) == (self.owner, self.epoch)
            return
        self.owner = ""
        assert (shot.controller_id, shot.lease_left_s) == ("", 0.0), "the lease has ended"
        assert (shot.policy, shot.params, shot.limits) == (
            default.policy, default.params, default.limits
        )  # fmt: skip

    def epochs_only_grow(self) -> None:
        epoch = self.scheduler.hmas_snapshot().epoch
        assert epoch >= self.epoch
        self.epoch = epoch

    def only_the_planted_fault_is_counted(self) -> None:
        fault = self.scheduler.last_fault
        assert fault == "" or PLANTED.fullmatch(fault), fault

    def memory_is_bounded(self) -> None:
        scheduler, observer = self.scheduler, self.scheduler.observer
        inside, waiting = len(self.driven.inside), len(scheduler.waiting)
        assert len(observer.accounting.tracks) == inside
        page = scheduler.hmas_journal(0, 10**6)
        assert len(page.arrivals) + len(page.outcomes) <= self.settings.journal_size
        lanes, core = list(scheduler.queue.lanes), scheduler.queue.core
        assert len(lanes) <= self.settings.max_tenants + 1 + 5  # others; those in a contract
        assert len({row.tenant for row in scheduler.hmas_snapshot().counters}) <= len(lanes) + 1
        assert core.engine["waiting"][0] == core.requests["queued"].sum() == waiting
        assert len(core.requests) <= max(1024, 4 * len(self.driven.guests))
        assert core.engine["lanes"][0] <= self.settings.max_tenants + 1 + 5
        assert set(scheduler.queue.rows.by_name) == set(self.driven.inside)
        # A fault of ours may keep an admission from being noted, but no end.
        active = {name for name, row in scheduler.queue.rows.by_name.items()
                  if core.requests["active"][row]}  # fmt: skip
        assert active <= {request.request_id for request in scheduler.running}

    def nothing_is_left_behind(self) -> None:
        """An engine that has served everybody is as empty as a new one."""
        scheduler = self.scheduler
        assert not scheduler.requests
        assert scheduler.hmas_snapshot().kv.used_blocks == 0
        assert scheduler.queue.backlog_tokens == 0
        assert not scheduler.queue.rows.by_name
        assert [(x.waiting, x.inside, x.running, x.decoding) for x in scheduler.queue.lanes if
                x.waiting or x.inside or x.running or x.decoding] == []  # fmt: skip


def floor_bound() -> int:
    """Work that a tenant with a floor may be behind, in tokens.

    Until the next admission the batch may do what it holds: two per token of its KV blocks.
    """
    tight = machine()
    return 2 * max(tight.max_model_len, 2 * tight.kv_blocks * tight.block_size)
