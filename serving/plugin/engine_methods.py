"""How do messages reach the scheduler inside the engine-core process?

Entry point `vllm.general_plugins: hmas_engine`. Installs one method on EngineCore,
which vLLM's utility RPC can call; it runs between steps, so it needs no lock.
"""

from typing import Any

from serving.contracts import Arrival, ContractError, Decision, decode, encode
from serving.in_force import fingerprint


def install() -> None:
    """Called by vLLM in every process; only the engine core ever uses the method."""
    from vllm.v1.engine.core import EngineCore

    EngineCore.hmas_call = hmas_call


def hmas_call(self: Any, method: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Answer one message, with this core's data-parallel `rank`.

    `{"error": ...}` for a message that does not fit. Runs in the engine's busy loop: what
    is asked often (`totals`) must not grow with the number of waiting requests.
    """
    scheduler = self.scheduler
    if not hasattr(scheduler, "hmas_snapshot"):
        name = type(scheduler).__name__
        return {
            "error": f"vLLM runs {name}, not the hook: start it with `hmas serve`, or with "
            "--scheduler-cls serving.scheduler.hmas_scheduler"
        }
    rank: int = scheduler.parallel_config.data_parallel_index
    try:
        return {**_answer(scheduler, rank, method, payload), "rank": rank}
    except ContractError as error:
        return {"error": str(error)}


def _answer(scheduler: Any, rank: int, method: str, payload: dict[str, Any]) -> dict[str, Any]:
    message: Any
    match method:
        case "settings":
            return {"fingerprint": fingerprint(scheduler.settings)}
        case "snapshot":
            message = scheduler.hmas_snapshot()
        case "totals":
            if payload and payload["rank"] == rank:
                scheduler.hmas_refused([decode(Arrival, item) for item in payload["refused"]])
            message = scheduler.hmas_totals()
        case "journal":
            message = scheduler.hmas_journal(_own(payload["cursors"], rank), payload["limit"])
        case "inside":
            message = scheduler.hmas_inside(payload["limit"])
        case "apply":
            message = scheduler.hmas_apply(decode(Decision, payload))
        case "renew":
            message = scheduler.hmas_renew(payload["controller_id"], payload["ttl_s"])
        case "release":
            message = scheduler.hmas_release(payload["controller_id"])
        case "stop":
            message = scheduler.hmas_stop(payload["by"], payload["reason"])
        case "start":
            message = scheduler.hmas_start(payload["by"])
        case _:
            raise ContractError(f"unknown method {method!r}")
    return encode(message)


def _own(cursors: list[int], rank: int) -> int:
    """A single cursor stands for every rank; of several, ranks without one begin at 0."""
    if len(cursors) == 1:
        return cursors[0]
    return cursors[rank] if rank < len(cursors) else 0
