"""Which replica of Ray Serve LLM gives a request its first token in time? A Ray request router.

Ray makes one in each process that sends requests, so in each replica of its ingress; each knows
what it has sent itself, and what the replicas say to Ray's controller (`HMASServer`). A
deployment's `request_router_config` names it, as `hmas fleet serve --route-by-deadline` writes it.
Imported only inside Ray: it needs the extra `fleet`.
"""

import logging
import time
from typing import Any

from ray.serve.request_router import (
    LocalityMixin,
    MultiplexMixin,
    PendingRequest,
    RequestRouter,
    RunningReplica,
)

from serving.contracts import RoutingHint, decode
from serving.contracts.settings import EngineSettings
from serving.fleet.chooser import Asked, ReplicaChooser, Said, text_of

logger = logging.getLogger("ray.serve")


class DeadlineRouter(LocalityMixin, MultiplexMixin, RequestRouter):
    """Of the replicas that are in time the one with the least to do for a request."""

    def initialize_state(self, settings: str = "{}") -> None:
        """Begin to route.

        Args:
            settings: what the replicas' engines started with, as JSON. What is promised to whom
                later comes from the replicas.
        """
        self._chooser = ReplicaChooser(EngineSettings.model_validate_json(settings))

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:  # fmt: skip
        """All candidates, the best first, each in a rank of its own; in one rank if that fails."""
        if pending_request is None or not candidate_replicas:
            return [candidate_replicas]
        try:
            by_name = {each.replica_id.to_full_id_str(): each for each in candidate_replicas}
            said = {name: said_by(each.routing_stats) for name, each in by_name.items()}
            self._chooser.follow(said)
            asked, now_s = self._asked_of(pending_request), time.time()
            order = self._chooser.order(asked, now_s)
            # Not when Ray has sent it: others are chosen for before.
            self._chooser.sent(asked, order[0], now_s)
            return [[by_name[name]] for name in order]
        except Exception:  # a request must not fail by how it is routed
            logger.exception("H-MAS cannot choose a replica: any may get this request")
            return [candidate_replicas]

    def _asked_of(self, pending: PendingRequest) -> Asked:
        for each in pending.args:
            prompt = getattr(each, "messages", None) or getattr(each, "prompt", None)
            if prompt is not None:
                extra = getattr(each, "vllm_xargs", None) or {}
                lora = pending.metadata.multiplexed_model_id or None
                return self._chooser.asked(text_of(prompt), extra, lora)
        return self._chooser.asked("", {}, None)


def said_by(stats: dict[str, Any]) -> Said | None:
    """What a replica said, if it said anything."""
    said = stats.get("hmas")
    if said is None:
        return None
    hint = decode(RoutingHint, said["hint"])
    return Said(said["at_s"], hint, said["epoch"], said["contract"])
