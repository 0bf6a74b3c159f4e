"""How do the guarantee tests drive vLLM's real scheduler, and what do they see of it?

A `Driven` scheduler keeps its own books of every request from what went in and came out,
without asking the hook, so that the hook's promises can be held against them.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from serving.contracts import CostCoefficients
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile
from serving.engines.virtual_vllm import build_scheduler
from serving.scheduler import HMASScheduler

STEP_S = 0.02
_STOP_TOKEN, _TOKEN = 1, 7
_NO_STEPS = 20  # without progress: more than any rule holds back


def machine(kv_blocks: int = 24, max_active: int = 5, token_budget: int = 32) -> EngineProfile:
    """A machine so tight that requests are preempted: blocks of 4 tokens, 48 per request."""
    cost = CostCoefficients(5e-3, 10e-6, 20e-6)
    return EngineProfile(
        "tight", "for tests", cost, max_active, token_budget, kv_blocks, 4, max_model_len=48
    )


@dataclass(slots=True)
class Guest:
    """One request, as the outside world knows it."""

    request: Request
    tenant: str  # as the hook reads it
    lane: str  # the tenant, or that of all tenants that are not counted apart
    arrival_s: float
    prompt_tokens: int
    answer_tokens: int
    got_tokens: int = 0
    ends: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What one call of `schedule` did: who waited before it, who was admitted, in order."""

    now_s: float
    waiting: list[Guest]  # those that vLLM could have admitted
    admitted: list[Guest]  # for the first time
    resumed: list[Guest]
    tokens: int
    floor_served: int
    shares: bool  # whether the policy in force shares work between tenants


@dataclass
class Driven:
    """The hooked scheduler, its clock, and books of everything that went in and came out."""

    settings: EngineSettings
    profile: EngineProfile = field(default_factory=machine)

    def __post_init__(self) -> None:
        self.now_s, self.scheduler = 1000.0, build_scheduler(
            HMASScheduler, self.profile, self.settings
        )  # fmt: skip
        self.scheduler.clock = lambda: self.now_s
        self.guests: dict[str, Guest] = {}
        self.inside: dict[str, Guest] = {}
        self.steps = self.preemptions = 0
        # By tenant: prompt tokens at each admission, and two per decode step.
        self.work: Counter[str] = Counter()
        self._in_flight: deque[tuple[SchedulerOutput, set[str]]] = deque()

    # -- from outside ---------------------------------------------------------------

    def arrive(
        self, tenant: str, prompt_tokens: int, answer_tokens: int, priority: int = 0,
        extra: dict[str, Any] | None = None,
    ) -> Guest:  # fmt: skip
        """A request comes in; `extra` goes beside its tenant, or instead of it."""
        name = f"r{len(self.guests)}"
        params = SamplingParams(
            max_tokens=min(40, self.profile.max_model_len - prompt_tokens),
            stop_token_ids=[_STOP_TOKEN], extra_args={"tenant": tenant, **(extra or {})},
        )  # fmt: skip
        request = Request(
            request_id=name, prompt_token_ids=[_TOKEN] * prompt_tokens, sampling_params=params,
            pooling_params=None, arrival_time=self.now_s, priority=priority,
        )  # fmt: skip
        self.scheduler.add_request(request)
        view = self.scheduler.observer.view_of(request)
        lane = self.scheduler.queue.lanes.of(view.tenant).tenant
        guest = Guest(request, view.tenant, lane, self.now_s, prompt_tokens, answer_tokens)
        self.guests[name] = self.inside[name] = guest
        return guest

    def abort(self, names: list[str] | None) -> None:
        """Clients go away (None: all); unknown names and those that have left may be among them."""
        gone = self.scheduler.finish_requests(names, RequestStatus.FINISHED_ABORTED)
        for request in gone:
            self._leaves(request.request_id)

    # -- steps ----------------------------------------------------------------------

    def schedule(self) -> Seen:
        """Schedule one step; its result is still to come."""
        scheduler = self.scheduler
        before = [guest for guest in self.inside.values() if _could_start(guest.request)]
        owed, shares = scheduler.queue.counts["floor_served"], scheduler.queue.policy.shares
        output = scheduler.schedule()
        counts = output.num_scheduled_tokens
        admitted = [self.guests[new.req_id] for new in output.scheduled_new_reqs]
        resumed = [self.guests[name] for name in output.scheduled_cached_reqs.resumed_req_ids]
        for guest in chain(admitted, resumed):
            self.work[guest.tenant] += guest.prompt_tokens
        requests = scheduler.requests
        sampling = {name for name in counts if not requests[name].is_prefill_chunk}
        self._in_flight.append((output, sampling))
        self.steps += 1
        self.preemptions += len(output.preempted_req_ids or ())
        return Seen(
            self.now_s, before, admitted, resumed, sum(counts.values()),
            scheduler.queue.counts["floor_served"] - owed, shares,
        )  # fmt: skip

    @property
    def in_flight(self) -> int:
        """Steps scheduled whose result is still to come."""
        return len(self._in_flight)

    def update(self) -> None:
        """The oldest step in flight has been computed."""
        output, sampling = self._in_flight.popleft()
        names = list(output.num_scheduled_tokens)
        result = ModelRunnerOutput(
            req_ids=names, req_id_to_index={name: i for i, name in enumerate(names)},
            sampled_token_ids=[self._sample(name) if name in sampling else [] for name in names],
        )  # fmt: skip
        self.now_s += STEP_S
        for client in self.scheduler.update_from_output(output, result).values():
            for item in client.outputs:
                guest = self.guests[item.request_id]
                if item.new_token_ids:
                    guest.got_tokens += len(item.new_token_ids)
                    self.work[guest.tenant] += 2 * (guest.got_tokens > 1)
                if item.finish_reason is not None:
                    self._leaves(item.request_id)

    def step(self, ahead: int = 0) -> Seen:
        """Schedule, then take in results until `ahead` steps are in flight."""
        seen = self.schedule()
        while len(self._in_flight) > ahead:
            self.update()
        return seen

    def drain(self) -> None:
        """Serve everybody who is inside, in a bounded number of steps."""
        while self._in_flight:
            self.update()
        idle = 0
        # Each step computes a token at least. Preempted prompts are computed again, but the
        # oldest running request never is, so a request's tokens bound what its turn wastes.
        most = 100 + 60 * sum(g.prompt_tokens + 40 for g in self.inside.values())
        for _ in range(most):
            if not self.inside:
                break
            before = len(self.inside)
            idle = 0 if self.step().tokens or len(self.inside) < before else idle + 1
            assert idle < _NO_STEPS, f"no progress with {sorted(self.inside)} inside"
        assert not self.inside, f"{sorted(self.inside)} not served in {most} steps"

    def _sample(self, name: str) -> list[int]:
        guest = self.guests[name]
        return [_STOP_TOKEN if guest.got_tokens + 1 >= guest.answer_tokens else _TOKEN]

    def _leaves(self, name: str) -> None:
        self.guests[name].ends += 1
        self.inside.pop(name, None)


def _could_start(request: Request) -> bool:
    # vLLM itself puts off a preempted request whose last token is still on its way.
    waits = request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED)
    stale = getattr(request, "num_stale_output_tokens", 0)  # not up to vLLM 0.26
    return waits and (not stale or request.drop_stale_output)
