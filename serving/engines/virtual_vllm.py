"""How is vLLM's scheduler built without a model? Configuration for the simulator.

Everything is vLLM's own: configuration classes, scheduler, KV-cache manager. The
model is a one-layer shape that nobody ever runs.
"""

import itertools
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from vllm.config import (
    CacheConfig,
    DeviceConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    VllmConfig,
)
from vllm.sampling_params import SamplingParams
from vllm.v1.core.kv_cache_utils import BlockHash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import CachedRequestData
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from serving.contracts.requests import PREFIX_BLOCK_TOKENS
from serving.contracts.settings import EngineSettings
from serving.engines.offered import as_the_trace_says
from serving.engines.profile import EngineProfile

STOP_TOKEN, TOKEN = 1, 7
_HASH_BYTES, _BLOCK_BITS = 6, 20  # a million blocks per request
_SHAPE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
    "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1,
    "num_key_value_heads": 1, "vocab_size": 128, "dtype": "bfloat16",
}  # fmt: skip


def build_scheduler(
    scheduler_cls: Callable[..., Scheduler],
    profile: EngineProfile,
    settings: EngineSettings,
    by_priority: bool = False,
) -> Any:
    """A scheduler of the given class with the sizes of `profile`; nothing is loaded.

    The same call works on every vLLM that `serving.compat` knows. With prefix caching, requests
    need a `block_hasher`, as vLLM's engine core gives them one.
    """
    with tempfile.TemporaryDirectory() as folder:
        shape = {**_SHAPE, "max_position_embeddings": profile.max_model_len}
        (Path(folder) / "config.json").write_text(json.dumps(shape))
        model = ModelConfig(
            model=folder, skip_tokenizer_init=True, dtype="bfloat16",
            max_model_len=profile.max_model_len, seed=0,
        )  # fmt: skip
        cache = CacheConfig(
            block_size=profile.block_size, enable_prefix_caching=profile.prefix_caching
        )
        cache.num_gpu_blocks = profile.kv_blocks
        config = VllmConfig(
            scheduler_config=SchedulerConfig(
                max_num_seqs=profile.max_active_requests,
                max_num_batched_tokens=profile.token_budget,
                max_model_len=profile.max_model_len, is_encoder_decoder=False,
                enable_chunked_prefill=True, policy="priority" if by_priority else "fcfs",
            ),
            model_config=model, cache_config=cache, device_config=DeviceConfig("cpu"),
            parallel_config=ParallelConfig(),
            additional_config={
                "hmas": settings.under(as_the_trace_says(settings.contract)).model_dump(mode="json")
            },
        )  # fmt: skip
    spec = FullAttentionSpec(
        block_size=profile.block_size, num_kv_heads=1, head_size=1, dtype=torch.float32
    )
    kv_cache = KVCacheConfig(
        num_blocks=profile.kv_blocks, kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
    )  # fmt: skip
    if isinstance(scheduler_cls, type):  # else vLLM's choice, which depends on the platform
        config.scheduler_config.async_scheduling = issubclass(scheduler_cls, AsyncScheduler)
    scheduler = scheduler_cls(
        vllm_config=config, kv_cache_config=kv_cache,
        structured_output_manager=StructuredOutputManager(config),
        block_size=profile.block_size, log_stats=False,
    )  # fmt: skip
    # Builds for a GPU have the second model runner, for which a step lists resumed requests
    # as new ones. Who drives a virtual scheduler reads them apart, as on the CPU.
    scheduler.use_v2_model_runner = False
    return scheduler


class SharedBlocks:
    """Names the full KV blocks of virtual requests, in place of vLLM's hashes of their tokens.

    Blocks have one name where two prompts are alike up to their last token: as long as the same
    `prefix` ids lead there. All others, and answers, are a request's own.
    """

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._paths: dict[tuple[int, int], int] = {}  # (path before, prefix id) -> path
        self._numbers = itertools.count(1)

    def names(
        self, prefix: Sequence[int], prompt_tokens: int, answer_tokens: int
    ) -> list[BlockHash]:
        """Of all full blocks of a prompt and its whole answer: vLLM looks at what it needs."""
        size, path, paths = self._block_size, 0, list[int]()
        for block in prefix:
            path = self._paths.get((path, block), 0) or self._paths.setdefault(
                (path, block), next(self._numbers)
            )
            paths.append(path)
        shared = min(len(paths) * PREFIX_BLOCK_TOKENS, prompt_tokens) // size
        own, full = next(self._numbers), (prompt_tokens + answer_tokens) // size
        leads = [paths[((i + 1) * size - 1) // PREFIX_BLOCK_TOKENS] for i in range(shared)]
        leads += [own] * (full - shared)
        return [
            BlockHash((lead << _BLOCK_BITS | i).to_bytes(_HASH_BYTES, "big"))
            for i, lead in enumerate(leads)
        ]


class VirtualRequests:
    """Builds requests for one virtual scheduler; those that allow the same share parameters."""

    def __init__(self, profile: EngineProfile) -> None:
        # The scheduler only reads them, and vLLM checks each new one at length.
        self._params: dict[tuple[Any, ...], SamplingParams] = {}
        self._blocks = SharedBlocks(profile.block_size) if profile.prefix_caching else None

    def build(
        self, name: str, arrival_s: float, prompt_tokens: int, max_tokens: int, priority: int,
        arguments: dict[str, str | float], answer_tokens: int, prefix: Sequence[int] = (),
    ) -> Request:  # fmt: skip
        """A request of so many prompt tokens; `arguments` are its `vllm_xargs`.

        `answer_tokens` is how long its answer will be at most; `prefix` is as in a
        `TraceRequest`. Both mean nothing without prefix caching.
        """
        key = (*arguments.items(), max_tokens)
        if key not in self._params:
            self._params[key] = SamplingParams(
                max_tokens=max_tokens, stop_token_ids=[STOP_TOKEN], extra_args=arguments
            )
        request = Request(
            request_id=name, prompt_token_ids=[TOKEN] * prompt_tokens,
            sampling_params=self._params[key], pooling_params=None, arrival_time=arrival_s,
            priority=priority,
        )  # fmt: skip
        if self._blocks is not None:
            request.block_hashes = self._blocks.names(prefix, prompt_tokens, answer_tokens)
        return request


def skip_idle_allocations(scheduler: Any) -> None:
    """Do not ask the KV-cache manager for room that a running request has already.

    Each token of an answer makes vLLM ask; only one in `block_size` needs a block, and for the
    others the manager changes nothing and returns its empty list: a fifth of a simulation's
    time. Holds for `build_scheduler`'s one group of full attention without speculation, where a
    running request's blocks cover its computed tokens. With prefix caching, a block that becomes
    full can be found from then on.
    """
    manager, block_size = scheduler.kv_cache_manager, scheduler.block_size
    allocate, nothing = manager.allocate_slots, manager.empty_kv_cache_blocks
    cache, caches = manager.cache_blocks, manager.enable_caching

    def allocate_slots(request: Request, num_new_tokens: int, *args: Any, **kwargs: Any) -> Any:
        room = -request.num_computed_tokens % block_size  # in its last block
        if num_new_tokens <= room and request.status == RequestStatus.RUNNING:
            if caches and num_new_tokens == room:
                cache(request, request.num_computed_tokens + num_new_tokens)
            return nothing
        return allocate(request, num_new_tokens, *args, **kwargs)

    manager.allocate_slots = allocate_slots
    manager.cache_blocks = lambda *_: None  # once more after each token: done by then


def skip_model_input(scheduler: Any) -> None:
    """Do not list tokens and blocks of running requests for a model that nobody runs.

    A step still names the requests that go on and those that resume, in vLLM's order.
    """

    def name_requests(
        running: Sequence[Request], resumed: Sequence[Request], *_: Any, **__: Any
    ) -> CachedRequestData:
        data = CachedRequestData.make_empty()
        data.resumed_req_ids = {request.request_id for request in resumed}
        data.req_ids = [request.request_id for request in (*running, *resumed)]
        return data

    scheduler._make_cached_request_data = name_requests
