"""Which replica of Ray Serve LLM gives a request its first token in time? A Ray request router.

Ray makes one in each process that sends requests, so in each replica of its ingress; each knows
what it has sent itself, and what the replicas say to Ray's controller (`HMASServer`). A
deployment's `request_router_config` names it, as `hmas fleet serve --route-by-deadline` writes it.
Imported only inside Ray: it needs the extra `fleet`.
"""

import time
from typing import Any

from ray.serve.request_router import (
    LocalityMixin,
    MultiplexMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from serving.contracts import RoutingHint, decode
from serving.contracts.settings import EngineSettings
from serving.fleet.chooser import Asked, ReplicaChooser, Said, asked_of, text_of


class DeadlineRouter(LocalityMixin, MultiplexMixin, RequestRouter):
    """Of the replicas that are in time the one with the least to do for a request."""

    def initialize_state(self, settings: str = "{}") -> None:
        """Begin to route.

        Args:
            settings: of the replicas' engines, as JSON: what was promised to whom.
        """
        self._settings = EngineSettings.model_validate_json(settings)
        self._chooser = ReplicaChooser()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:  # fmt: skip
        """All candidates, the best first, each in a rank of its own."""
        if pending_request is None:
            return [candidate_replicas]
        by_name = {each.replica_id.to_full_id_str(): each for each in candidate_replicas}
        self._chooser.follow({name: said_by(each.routing_stats) for name, each in by_name.items()})
        order = self._chooser.order(self._asked_of(pending_request), time.time())
        return [[by_name[name]] for name in order]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID,
        result: object,  # noqa: ARG002  Ray's name
    ) -> None:  # fmt: skip
        """Ray has sent a request: the next one sees it in what the replica owes."""
        asked = self._asked_of(pending_request)
        self._chooser.sent(asked, replica_id.to_full_id_str(), time.time())

    def _asked_of(self, pending: PendingRequest) -> Asked:
        for each in pending.args:
            prompt = getattr(each, "messages", None) or getattr(each, "prompt", None)
            if prompt is not None:
                extra = getattr(each, "vllm_xargs", None) or {}
                lora = pending.metadata.multiplexed_model_id or None
                return asked_of(text_of(prompt), extra, lora, self._settings)
        return asked_of("", {}, None, self._settings)


def said_by(stats: dict[str, Any]) -> Said | None:
    """What a replica said, if it said anything."""
    said = stats.get("hmas")
    return None if said is None else Said(said["at_s"], decode(RoutingHint, said["hint"]))
