"""How do messages reach the scheduler inside the engine-core process?

Entry point `vllm.general_plugins: hmas_engine`. Installs one method on EngineCore,
which vLLM's utility RPC can call; it runs between steps, so it needs no lock.
"""

from typing import Any

from serving.contracts import ContractError, Decision, decode, encode


def install() -> None:
    """Called by vLLM in every process; only the engine core ever uses the method."""
    from vllm.v1.engine.core import EngineCore

    EngineCore.hmas_call = hmas_call


def hmas_call(self: Any, method: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Answer one message; `{"error": ...}` for a message that does not fit."""
    scheduler = self.scheduler
    if not hasattr(scheduler, "hmas_snapshot"):
        name = type(scheduler).__name__
        return {
            "error": f"vLLM runs {name}, not the hook: start it with `hmas serve`, or with "
            "--scheduler-cls serving.scheduler.HMASScheduler"
        }
    try:
        return _answer(scheduler, method, payload)
    except ContractError as error:
        return {"error": str(error)}


def _answer(scheduler: Any, method: str, payload: dict[str, Any]) -> dict[str, Any]:
    message: Any
    match method:
        case "snapshot":
            message = scheduler.hmas_snapshot()
        case "journal":
            message = scheduler.hmas_journal(payload["cursor"], payload["limit"])
        case "apply":
            message = scheduler.hmas_apply(decode(Decision, payload))
        case "renew":
            message = scheduler.hmas_renew(payload["controller_id"], payload["ttl_s"])
        case "release":
            message = scheduler.hmas_release(payload["controller_id"])
        case _:
            raise ContractError(f"unknown method {method!r}")
    return encode(message)
