"""Which schedulers are timed, on which queue state? Called by `evals.checks.bench`.

Every arm is a real vLLM scheduler with the same batch of decodes and as many requests
waiting; one step of `Arm` is what the engine core does, without the model. Whom a policy
admits must not change the work: prompts and answers together fit into one KV block of
1,024 tokens and a prompt into one step, so every admission costs vLLM the same.
"""

import random
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from vllm.sampling_params import SamplingParams
from vllm.utils.gc_utils import freeze_gc_heap
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from serving.contracts import Contract, CostCoefficients, TenantTerms
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile
from serving.engines.virtual_vllm import build_scheduler
from serving.perception.cost_model import CostModel, step_shape
from serving.scheduler import HMASScheduler

_STOP_TOKEN, _TOKEN = 1, 7
_LONGEST_PROMPT, _MAX_TOKENS = 600, 400
_CLASSES = ("interactive", "conversational", "document", "batch", "best_effort")
_TENANTS = 16
NOW_S = 1.76e9  # Unix time: as large as the keys of a live engine
_SPREAD_S = 600.0  # the queue has built up over ten minutes

PROFILE = EngineProfile(
    "bench", "assumed; only the demotions' moments depend on it",
    CostCoefficients(5e-3, 10e-6, 20e-6), max_active_requests=256, token_budget=8192,
    kv_blocks=4096, block_size=1024,
)  # fmt: skip
# No request starves within a run: the ceiling's order would hide the policy's.
SETTINGS = EngineSettings(
    max_wait_s=86_400.0,
    contract=Contract(
        tenants={
            "t0": TenantTerms(weight=2.0), "t1": TenantTerms(weight=0.5),
            "t2": TenantTerms(floor=0.05),
        }
    ),
)


def freeze_heap() -> None:
    """Keep the collector off what exists now, as vLLM's engine core does at its start.

    Here the queues are frozen, too: a full collection would walk those of all arms, and be
    charged to whoever allocated last.
    """
    freeze_gc_heap()


@dataclass(frozen=True, slots=True)
class Drawn:
    """A request that every arm gets."""

    request_id: str
    prompt_tokens: int
    tenant: str
    slo_class: str
    arrival_s: float
    priority: int

    def build(self) -> Request:
        """A request as vLLM holds it."""
        params = SamplingParams(
            max_tokens=_MAX_TOKENS, stop_token_ids=[_STOP_TOKEN],
            extra_args={"tenant": self.tenant, "slo_class": self.slo_class},
        )  # fmt: skip
        return Request(
            request_id=self.request_id, prompt_token_ids=[_TOKEN] * self.prompt_tokens,
            sampling_params=params, pooling_params=None, arrival_time=self.arrival_s,
            priority=self.priority,
        )  # fmt: skip


class Draw:
    """Requests by seed: lognormal prompts, 16 tenants of unequal size, five SLO classes."""

    def __init__(self, seed: int) -> None:
        self.rng, self._count = random.Random(seed), 0

    def request(self, arrival_s: float) -> Drawn:
        """The next one."""
        self._count += 1
        rng = self.rng
        return Drawn(
            f"r{self._count}",
            min(_LONGEST_PROMPT, 1 + int(rng.lognormvariate(5.0, 0.9))),
            f"t{int(_TENANTS * rng.random() ** 2)}",
            rng.choice(_CLASSES),
            arrival_s,
            rng.randrange(3),
        )

    def past(self) -> float:
        """A moment of the ten minutes before the bench."""
        return NOW_S - _SPREAD_S * self.rng.random()


class Clock:
    """Virtual time that all arms share, so that the same demotions fall due."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        """Now, in Unix seconds."""
        return self.now_s


class Arm:
    """One scheduler and what it takes to step it; times are nanoseconds.

    They are the thread's CPU time: nothing here waits, and what else runs on the machine
    does not count. Only pops take the wall clock, which costs less to read than they do.

    Args:
        hooked: the hook, or vLLM's own scheduler.
        running: size of the running batch.
        seed: decides whom the arm's clients abort.
    """

    def __init__(
        self, clock: Clock, *, hooked: bool, running: int, seed: int = 0,
        settings: EngineSettings = SETTINGS,
    ) -> None:  # fmt: skip
        profile = EngineProfile(
            PROFILE.name, PROFILE.provenance, PROFILE.cost, running,
            max(PROFILE.token_budget, running + 2 * _LONGEST_PROMPT),
            max(PROFILE.kv_blocks, 4 * running), PROFILE.block_size,
        )  # fmt: skip
        cls = HMASScheduler if hooked else AsyncScheduler
        self.scheduler: Any = build_scheduler(cls, profile, settings)
        if hooked:
            self.scheduler.clock = clock
            self.scheduler.start_from(CostModel(profile.cost))
        self._rng = random.Random(seed)
        self._batch: deque[str] = deque()  # admitted, oldest first
        self._in_flight: deque[tuple[SchedulerOutput, list[str]]] = deque()
        self._waiting: list[str] = []
        self._place: dict[str, int] = {}
        self._plan: list[str] = []
        self.admitted: list[str] = []  # in the last step
        self.scheduled = 0, 0  # requests and tokens of the last step
        self.step_s = 0.0

    def follow(self, plan: list[str]) -> None:
        """Admit these next, whether they wait already or are to come: vLLM's own queue only.

        For other requests would be other work: in memory, one that came ten minutes ago
        lies beside its neighbours, and one that has just come lies anywhere.
        """
        self._plan = plan
        waiting, requests = self.scheduler.waiting, self.scheduler.requests
        first = [requests[name] for name in plan if name in self._place]
        waiting.remove_requests(first)
        waiting.extendleft(reversed(first))

    def add(self, request: Request) -> int:
        """A request comes in."""
        name = request.request_id
        start = time.thread_time_ns()
        self.scheduler.add_request(request)
        taken = time.thread_time_ns() - start
        if name in self._plan:
            before = self._plan[: self._plan.index(name)]
            waiting = self.scheduler.waiting
            waiting.insert(sum(one in self._place for one in before), waiting.pop())
        self._place[name] = len(self._waiting)
        self._waiting.append(name)
        return taken

    def abort_one(self) -> int:
        """The client of a random waiting request goes away."""
        request_id = self._rng.choice(self._waiting)
        self._left_the_queue(request_id)
        start = time.thread_time_ns()
        self.scheduler.finish_requests(request_id, RequestStatus.FINISHED_ABORTED)
        return time.thread_time_ns() - start

    def pop_and_put_back(self) -> int:
        """Time of peek and pop; what vLLM does with a request that must be skipped."""
        waiting = self.scheduler.waiting
        start = time.perf_counter_ns()
        waiting.peek_request()
        request = waiting.pop_request()
        taken = time.perf_counter_ns() - start
        waiting.prepend_requests([request])
        return taken

    def schedule(self) -> int:
        """One call of `schedule`."""
        schedule = self.scheduler.schedule
        start = time.thread_time_ns()
        output = schedule()
        taken = time.thread_time_ns() - start
        self.admitted = [new.req_id for new in output.scheduled_new_reqs]
        for name in self.admitted:
            self._batch.append(name)
            self._left_the_queue(name)
        self.scheduled = len(output.num_scheduled_tokens), output.total_num_scheduled_tokens
        requests = self.scheduler.requests
        self.step_s = step_shape(output.num_scheduled_tokens, requests).seconds(PROFILE.cost)
        sampled = [r for r in output.num_scheduled_tokens if not requests[r].is_prefill_chunk]
        self._in_flight.append((output, sampled))
        return taken

    def update(self, *, ends: bool) -> int:
        """Take in the step before the last, as async scheduling does; the oldest may end."""
        if len(self._in_flight) < 2:
            return 0
        output, sampled = self._in_flight.popleft()
        last = self._batch.popleft() if ends and self._batch and self._batch[0] in sampled else ""
        ids, tokens = list(output.num_scheduled_tokens), {r: [_TOKEN] for r in sampled}
        if last:
            tokens[last] = [_STOP_TOKEN]
        result = ModelRunnerOutput(
            req_ids=ids, req_id_to_index={r: i for i, r in enumerate(ids)},
            sampled_token_ids=[tokens.get(r, []) for r in ids],
        )  # fmt: skip
        start = time.thread_time_ns()
        self.scheduler.update_from_output(output, result)
        return time.thread_time_ns() - start

    @property
    def full(self) -> bool:
        """Whether the batch has no room and nobody in it is still in prefill."""
        running = self.scheduler.running
        most = self.scheduler.scheduler_config.max_num_seqs
        return len(running) == most and not any(r.is_prefill_chunk for r in running)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    def _left_the_queue(self, request_id: str) -> None:
        place = self._place.pop(request_id)
        last = self._waiting.pop()
        if last != request_id:
            self._waiting[place] = last
            self._place[last] = place
