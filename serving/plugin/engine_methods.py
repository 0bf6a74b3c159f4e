"""How do messages reach the scheduler inside the engine-core process?

Entry point `vllm.general_plugins: hmas_engine`. Installs one method on EngineCore,
which vLLM's utility RPC can call; it runs between steps, so it needs no lock.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from serving.contracts import (
    Arrival,
    ContractChange,
    ContractError,
    ContractInForce,
    Decision,
    TenantPart,
    decode,
    encode,
)
from serving.contracts.in_force import fingerprint


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
    match method:
        case "settings":
            return {"fingerprint": fingerprint(scheduler.settings)}
        case "totals":
            if payload.get("rank") == rank:
                scheduler.hmas_refused([decode(Arrival, item) for item in payload["refused"]])
            light = payload.get("light")  # asked often, where a quota is in doubt
            return encode(
                scheduler.hmas_totals(histograms=False) if light else scheduler.hmas_totals()
            )
        case "journal":
            own = _own(payload["cursors"], rank)
            return encode(scheduler.hmas_journal(own, payload["limit"]))
        case _ if method in _PLAIN:
            return encode(_PLAIN[method](scheduler, payload))
    raise ContractError(f"unknown method {method!r}")


# What an engine core does that is asked, whatever its rank.
_PLAIN: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "snapshot": lambda hook, _: hook.hmas_snapshot(),
    "inside": lambda hook, asked: hook.hmas_inside(asked["limit"]),
    "apply": lambda hook, asked: hook.hmas_apply(decode(Decision, asked)),
    "renew": lambda hook, asked: hook.hmas_renew(
        asked["controller_id"], asked["ttl_s"],
        None if asked.get("parts") is None else decode(dict[str, TenantPart], asked["parts"]),
    ),
    "release": lambda hook, asked: hook.hmas_release(asked["controller_id"]),
    "stop": lambda hook, asked: hook.hmas_stop(asked["by"], asked["reason"]),
    "start": lambda hook, asked: hook.hmas_start(asked["by"]),
    "contract": lambda hook, _: _without_keys(hook.hmas_contract()),
    "contract_with_keys": lambda hook, _: hook.hmas_contract(),
    "apply_contract": lambda hook, asked: hook.hmas_apply_contract(decode(ContractChange, asked)),
}


def _without_keys(held: ContractInForce) -> ContractInForce:
    """The contract without what only the server's own processes need."""
    keys = {name: len(t.api_key_hashes) for name, t in held.contract.tenants.items()}
    keys = {name: count for name, count in keys.items() if count}
    return replace(held, contract=held.contract.without_keys(), keys=keys)


def _own(cursors: list[int], rank: int) -> int:
    """A single cursor stands for every rank; of several, ranks without one begin at 0."""
    if len(cursors) == 1:
        return cursors[0]
    return cursors[rank] if rank < len(cursors) else 0
