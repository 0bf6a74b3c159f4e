"""How do the shape tests drive vLLM's real scheduler, hooked or stock, with any request?

A `Shaped` scheduler takes requests with a prefix, a grammar, a LoRA or draft tokens, may
run steps ahead, and is checked after each step against a plain loop over what runs.
"""

import functools
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from vllm.config import KVTransferConfig, LoRAConfig, SpeculativeConfig, VllmConfig
from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheGroupSpec,
    KVCacheSpec,
    MambaSpec,
    SlidingWindowSpec,
)
from vllm.v1.outputs import DraftTokenIds, KVConnectorOutput, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from serving.contracts import CostCoefficients, Limits, Outcome
from serving.contracts.settings import EngineSettings
from serving.core.control import is_partial
from serving.core.decoding import look
from serving.engines import virtual_vllm
from serving.engines.profile import EngineProfile
from serving.engines.virtual_vllm import build_scheduler
from serving.perception.cost_model import CostModel
from serving.scheduler import HMASScheduler
from tests.serving.driven_scheduler import machine
from tests.serving.samples import decision
from tests.serving.simulation import Step, step_of

STEP_S = 0.02
STOP_TOKEN, TOKEN = 1, 7
_MOST_STEPS = 3000


class AnyText:
    """A grammar that allows everything; compiling a real one needs a tokenizer."""

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        """Whether the tokens fit."""
        return True

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """Those of the draft tokens that fit."""
        return tokens

    def is_terminated(self) -> bool:
        """Whether the answer must end."""
        return False


@dataclass
class Shaped:
    """A scheduler of a class, its clock, the steps it scheduled, and the tokens it delivered."""

    scheduler_cls: Any = HMASScheduler
    settings: EngineSettings = field(default_factory=EngineSettings)
    profile: EngineProfile = field(default_factory=machine)
    prefix_caching: bool = False
    ahead: int = 0  # steps in flight when the next one is scheduled
    right: int | None = None  # how many draft tokens are; None: it varies
    cost: CostCoefficients | None = None  # what the hook believes, whatever it measures

    def __post_init__(self) -> None:
        self.now_s, self.epoch = 1000.0, 0
        profile = replace(self.profile, prefix_caching=self.prefix_caching)
        self.scheduler = build_scheduler(self.scheduler_cls, profile, self.settings)
        self.hooked = hasattr(self.scheduler, "hmas_snapshot")
        if self.hooked:
            self.scheduler.clock = lambda: self.now_s
        self.steps: list[Step] = []
        self.got: dict[str, int] = {}
        self.finished: dict[str, str] = {}
        self.requests: dict[str, Request] = {}
        self.seen: dict[str, int] = {}  # output tokens at the last admission
        self.answers: dict[str, int] = {}
        self.first_s: dict[str, float] = {}  # when each got its first token
        self._in_flight: deque[tuple[SchedulerOutput, set[str]]] = deque()
        init_none_hash(sha256)
        self._hasher = get_request_block_hasher(self.profile.block_size, sha256)

    def add(
        self, name: str, prompt: int | list[int], answer: int = 3, *, lora: int = 0,
        grammar: bool = False, resumable: bool = False, **extra: Any,
    ) -> Request:  # fmt: skip
        """A request comes in; `extra` are its xargs, `lora` the number of an adapter."""
        tokens = [TOKEN] * prompt if isinstance(prompt, int) else prompt
        request = Request(
            request_id=name, prompt_token_ids=tokens, pooling_params=None,
            sampling_params=SamplingParams(
                max_tokens=self.profile.max_model_len - len(tokens), extra_args=extra,
                stop_token_ids=[STOP_TOKEN],
                structured_outputs=StructuredOutputsParams(regex=".*") if grammar else None,
            ),
            arrival_time=self.now_s, priority=extra.pop("priority", 0), resumable=resumable,
            lora_request=LoRARequest(f"lora{lora}", lora, "nowhere") if lora else None,
            block_hasher=self._hasher if self.prefix_caching else None,
        )  # fmt: skip
        self.got[name], self.answers[name], self.requests[name] = 0, answer, request
        self.scheduler.add_request(request)
        return request

    def compiled(self, name: str, grammar: Any = None) -> None:
        """A request's grammar is ready, or compiling it has failed with an exception."""
        self.requests[name].structured_output_request.grammar = grammar or AnyText()

    def abort(self, *names: str) -> None:
        """Clients go away."""
        for request in self.scheduler.finish_requests(names, RequestStatus.FINISHED_ABORTED):
            self.finished[request.request_id] = "abort"

    def schedule(self) -> SchedulerOutput:
        """Schedule one step; its result is still to come."""
        if self.cost:
            self.scheduler.observer.start_from(CostModel(self.cost))
        output = self.scheduler.schedule()
        step = step_of(output)
        self.steps.append(step)
        for name in (*step[1], *step[2]):
            self.seen[name] = self.requests[name].num_output_tokens
        requests = self.scheduler.requests
        sampling = {n for n in output.num_scheduled_tokens if not requests[n].is_prefill_chunk}
        self._in_flight.append((output, sampling))
        self.check()
        return output

    def update(self) -> None:
        """The oldest step in flight has been computed."""
        output, sampling = self._in_flight.popleft()
        names = list(output.num_scheduled_tokens)
        drafts = output.scheduled_spec_decode_tokens
        sampled = [
            self._sample(name, len(drafts.get(name, ()))) if name in sampling else []
            for name in names
        ]
        remote = self.scheduler.connector
        result = ModelRunnerOutput(
            req_ids=names, req_id_to_index={name: i for i, name in enumerate(names)},
            sampled_token_ids=sampled,
            kv_connector_output=remote and KVConnectorOutput(finished_recving=remote.loaded()),
        )  # fmt: skip
        self.now_s += STEP_S
        for client in self.scheduler.update_from_output(output, result).values():
            for item in client.outputs:
                self.got[item.request_id] += len(item.new_token_ids)
                self.first_s.setdefault(item.request_id, self.now_s)
                if item.finish_reason is not None:
                    self.finished[item.request_id] = str(item.finish_reason)
        if self.scheduler.num_spec_tokens and not isinstance(self.scheduler, AsyncScheduler):
            ids = [[TOKEN] * self.scheduler.num_spec_tokens for _ in names]
            self.scheduler.update_draft_token_ids(DraftTokenIds(names, ids))
        self.check()

    def step(self, count: int = 1) -> None:
        """Schedule, then take in results until `ahead` steps are in flight."""
        for _ in range(count):
            self.schedule()
            self.catch_up()

    def catch_up(self) -> None:
        """Take in results until `ahead` steps are in flight."""
        while len(self._in_flight) > self.ahead:
            self.update()

    def drain(self) -> None:
        """Serve everybody who is inside, in a bounded number of steps."""
        for _ in range(_MOST_STEPS):
            self.catch_up()
            if not self.scheduler.has_unfinished_requests():
                break
            self.step()
        while self._in_flight:
            self.update()
        assert not self.scheduler.requests, f"{sorted(self.scheduler.requests)} are left"

    def outcomes(self) -> dict[str, Outcome]:
        """What the engine's journal says of those that have left."""
        page = self.scheduler.hmas_journal(0, 10_000)
        return {outcome.request_id: outcome for outcome in page.outcomes}

    def check(self) -> None:
        """What the hook believes runs is what runs; nothing of it has failed."""
        if not self.hooked:
            return
        scheduler = self.scheduler
        assert scheduler.last_fault == ""
        queue, running = scheduler.queue, scheduler.control.follow(scheduler.running)
        rows = {name: row for name, row in queue.rows.by_name.items() if self.fact(name, "active")}
        assert rows.keys() == {request.request_id for request in running}
        begun = {request.request_id for request in running if request.is_prefill_chunk}
        assert {name for name, row in rows.items() if is_partial(queue.core, row)} == begun

    def fact(self, name: str, field: str) -> Any:
        """What the hook's arrays say of a request that is inside."""
        queue = self.scheduler.queue
        return queue.core.requests[field][queue.rows.by_name[name]].item()

    def look(self) -> None:
        """Have the hook note how the running requests stand now."""
        self.scheduler.control.follow(self.scheduler.running)
        self.scheduler.queue.core.engine["start_s"] = self.now_s
        look(self.scheduler.queue.core)

    def decide(self, policy: str = "fcfs", **limits: Any) -> None:
        """A decision in force to the end, with limits other than the engine's."""
        most = Limits(self.profile.max_active_requests, self.profile.token_budget)
        self.epoch += 1
        ack = self.scheduler.hmas_apply(
            decision(self.epoch, policy, ttl_s=3600.0, limits=replace(most, **limits))
        )
        assert ack.accepted, ack.reason

    def check_books(self) -> None:
        """After `drain`: everybody has left once, and the engine is as empty as a new one."""
        shot, scheduler = self.scheduler.hmas_snapshot(), self.scheduler
        assert (shot.policy_errors, shot.last_error) == (0, "")
        rows = shot.counters
        assert sum(row.received for row in rows) == len(self.requests)
        assert sum(row.finished + row.aborted for row in rows) == len(self.requests)
        served = [name for name, why in self.finished.items() if why in ("stop", "length")]
        assert sum(row.finished for row in rows) == len(served)
        assert sum(row.output_tokens for row in rows) == sum(
            request.num_output_tokens for request in self.requests.values()
        )
        assert (shot.kv.used_blocks, shot.queue.waiting, shot.batch.running) == (0, 0, 0)
        assert scheduler.queue.backlog_tokens == 0
        assert not scheduler.observer.accounting.tracks
        assert not scheduler.queue.rows.by_name, "each row is free again"
        lanes = scheduler.queue.lanes
        assert not [x for x in lanes if x.waiting or x.inside or x.running or x.decoding]

    def _sample(self, name: str, drafts: int) -> list[int]:
        # How many drafts are right depends on the request and its place, so both arms agree.
        right = (len(name) + 3 * self.got[name]) % (drafts + 1)
        if self.right is not None:
            right = min(self.right, drafts)
        left = self.answers[name] - self.got[name]
        tokens = [TOKEN] * min(1 + right, max(left, 1))
        return [*tokens[:-1], STOP_TOKEN] if left <= len(tokens) else tokens


def decode_shapes(
    engine: Shaped, steps: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Decodes and context of coming steps that have nothing else.

    As a plain loop has them, and those that the hook had learned last after each: `ahead` later.
    """
    told, learned = [], []
    for _ in range(steps):
        counts = engine.schedule().num_scheduled_tokens
        told.append((len(counts), sum(engine.requests[n].num_computed_tokens for n in counts)))
        engine.catch_up()
        decodes, context = engine.scheduler.queue.core.engine["decode_shape"][0].tolist()
        learned.append((int(decodes), int(context)))
    return told, learned


def with_lora(monkeypatch: pytest.MonkeyPatch, max_loras: int = 1) -> None:
    """Engines built from now on serve LoRA adapters, so many at once."""
    config = LoRAConfig(max_loras=max_loras, max_cpu_loras=8)
    _configure(monkeypatch, lora_config=config)


def with_drafts(monkeypatch: pytest.MonkeyPatch, tokens: int = 3) -> None:
    """Engines built from now on speculate, with so many draft tokens (ngram: no draft model)."""
    speculation = SpeculativeConfig(model="ngram", num_speculative_tokens=tokens)
    _configure(monkeypatch, speculative_config=speculation)


def with_remote_kv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines built from now on may load KV that another engine has computed."""
    config = KVTransferConfig(
        kv_connector="RemoteKV", kv_role="kv_consumer",
        kv_connector_module_path="tests.serving.remote_kv",
    )  # fmt: skip
    _configure(monkeypatch, kv_transfer_config=config)


def with_groups(monkeypatch: pytest.MonkeyPatch, *specs: KVCacheSpec) -> None:
    """Engines built from now on have a KV cache group for each, as hybrid models do."""
    groups = [KVCacheGroupSpec([f"layer{i}"], spec) for i, spec in enumerate(specs)]
    inner = vars(virtual_vllm)["KVCacheConfig"]
    build = functools.partial(_with, inner, {"kv_cache_groups": groups})
    monkeypatch.setattr(virtual_vllm, "KVCacheConfig", build)


def with_mamba(monkeypatch: pytest.MonkeyPatch, block_size: int) -> None:
    """Engines built from now on have a layer of attention and one of Mamba, in aligned blocks."""
    mamba = MambaSpec(
        block_size=block_size, shapes=((1,),), dtypes=(torch.float32,), mamba_cache_mode="align"
    )
    with_groups(monkeypatch, attention(block_size), mamba)
    _configure(monkeypatch, **{"cache_config.mamba_cache_mode": "align"})


def attention(block_size: int, window: int = 0) -> KVCacheSpec:
    """The KV cache of an attention layer, full or with a sliding window."""
    sizes: dict[str, Any] = {"num_kv_heads": 1, "head_size": 1, "dtype": torch.float32}
    if window:
        return SlidingWindowSpec(block_size=block_size, sliding_window=window, **sizes)
    return FullAttentionSpec(block_size=block_size, **sizes)


def with_stages(monkeypatch: pytest.MonkeyPatch, stages: int = 2) -> None:
    """Engines built from now on are a pipeline: a request is in one step of those in flight."""
    _configure(monkeypatch, **{"parallel_config.pipeline_parallel_size": stages})


def _with(cls: Any, instead: dict[str, Any], **kwargs: Any) -> Any:
    return cls(**{**kwargs, **instead})


def _configure(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    inner = vars(virtual_vllm)["VllmConfig"]

    @functools.wraps(VllmConfig)
    def build(**kwargs: Any) -> VllmConfig:
        config = inner(**kwargs)
        for path, value in fields.items():  # past checks that concern platforms and workers
            *parts, name = path.split(".")
            setattr(functools.reduce(getattr, parts, config), name, value)
        return config

    monkeypatch.setattr(virtual_vllm, "VllmConfig", build)
