"""How do messages get into a replica of Ray Serve LLM? Ray's server with one method more.

Ray builds it where an LLM config names it as `server_cls`, as `hmas fleet serve` does. Imported
only inside Ray: it needs the extra `fleet`.
"""

import time
from typing import Any

from ray.serve.llm import LLMServer

from serving.compat import call_every_core, mark_ended_answers
from serving.contracts import ContractAck, ContractChange, RoutingHint, decode, encode
from serving.fleet.chooser import mean_hint
from serving.fleet.ray_app import UNKEPT


class HMASServer(LLMServer):
    """Ray's LLM server with vLLM's hook in reach.

    Who may call an actor of the Ray cluster may call this; the HTTP ingress does not lead here.
    """

    _held: dict[str, Any] = {"epoch": 0, "contract": None}  # replaced whole, with each contract

    async def start(self) -> None:
        """Start the engine; from then on it is told which aborts are answers that ended."""
        await super().start()
        mark_ended_answers(self._client())

    async def hmas_call(self, method: str, payload: dict[str, Any]) -> list[dict[str, Any]]:
        """Answers of all engine cores of this replica to one of `plugin.engine_methods`."""
        core = self._client().engine_core
        if method == "apply_contract" and decode(ContractChange, payload).contract.asks_of_requests:
            held = await call_every_core(core, "hmas_call", "contract", {})
            epochs = {each["rank"]: each["epoch"] for each in held}
            return [
                {**encode(ContractAck(False, epoch, epoch, UNKEPT, ())), "rank": rank}
                for rank, epoch in epochs.items()
            ]
        return await call_every_core(core, "hmas_call", method, payload)

    async def record_routing_stats(self) -> dict[str, Any]:
        """What Ray's routers hear of this replica beside Ray's own: its hint, and what it promises.

        Of several engine cores the mean, for vLLM divides requests among them. The contract is
        said where it is another than at the start.
        """
        stats: dict[str, Any] = await super().record_routing_stats()
        if self.engine is None:
            return stats
        asked_s, core = time.time(), self._client().engine_core
        totals = await call_every_core(core, "hmas_call", "totals", {})
        hints = [decode(RoutingHint, each["hint"]) for each in totals if each.get("hint")]
        if not hints:
            return stats
        if max(each["contract_epoch"] for each in totals) != self._held["epoch"]:
            held = await call_every_core(core, "hmas_call", "contract", {})
            newest = max(held, key=lambda each: each["epoch"])
            self._held = {key: newest[key] for key in self._held}
        hint = encode(mean_hint(hints))
        return {**stats, "hmas": {"at_s": asked_s, "hint": hint, **self._held}}

    def _client(self) -> Any:
        return self.engine._engine_client  # Ray has no other way to it
