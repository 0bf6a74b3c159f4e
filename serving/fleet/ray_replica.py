"""How is one replica of Ray Serve asked? The one file that touches what Ray does not promise.

Ray's own way to all replicas (`broadcast`, experimental) waits without a limit and fails for all
when one has died. This makes the same call to one replica, within a time limit.
"""

import math
import os
import pickle
import uuid
from dataclasses import dataclass
from typing import Any

from serving.engines.asked import AskedEngine
from serving.engines.protocol import EngineUnavailable
from serving.fleet.ray_app import RayMissing

_NAMESPACE, _CONTROLLER = "serve", "SERVE_CONTROLLER_ACTOR"
_LOOK_S = 10.0  # Ray's controller answers between two of its own rounds


@dataclass(frozen=True, slots=True)
class RunningReplica:
    """One replica that Ray Serve counts as running.

    Attributes:
        replica_id: Ray's name for it, unique.
        actor_name: by which its actor is found.
    """

    replica_id: str
    actor_name: str


class RayReplica(AskedEngine):
    """The engine inside one replica; calls count as requests of its `max_ongoing_requests`.

    Args:
        replica: which.
        timeout_s: of every call.
        look_s: of snapshots, if that is less.
    """

    def __init__(
        self, replica: RunningReplica, timeout_s: float = 30.0, look_s: float = math.inf
    ) -> None:
        super().__init__(timeout_s, look_s)
        self._replica = replica
        self._actor: Any = None

    def place(self, method: str) -> str:
        """Ray's name of the replica, and the method."""
        return f"replica {self._replica.replica_id} of Ray Serve, {method}"

    def ask(self, method: str, payload: dict[str, Any], limit_s: float) -> list[dict[str, Any]]:
        """The answers of the engine cores inside the replica."""
        import ray
        from ray.exceptions import RayError
        from ray.serve._private.common import RequestMetadata

        name = f"hmas-{uuid.uuid4()}"
        call = pickle.dumps(RequestMetadata(name, name, call_method="hmas_call"))
        try:
            if self._actor is None:
                self._actor = ray.get_actor(self._replica.actor_name, _NAMESPACE)
            answer = self._actor.handle_request.remote(call, method, payload)
            answers: list[dict[str, Any]] = ray.get(answer, timeout=limit_s)
        except (RayError, ValueError) as error:  # ValueError: no actor of that name any more
            first = str(error).strip().partition("\n")[0]
            raise EngineUnavailable(
                f"{self.place(method)}: {type(error).__name__} {first}: `serve status` says what "
                "Ray makes of it"
            ) from error
        for each in answers:
            if "error" in each:
                raise EngineUnavailable(f"{self.place(method)}: {each['error']}")
        return answers


def applications() -> dict[str, dict[str, list[RunningReplica]]]:
    """The running replicas by application and deployment, as Ray Serve's controller says.

    The cluster is that of RAY_ADDRESS, else the one on this machine; the first call connects.

    Raises:
        RayMissing: the extra is not installed.
        EngineUnavailable: no cluster, no Ray Serve in it, or no answer.
    """
    try:
        import ray
        import ray.serve
    except ImportError as error:
        raise RayMissing from error
    address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        if not ray.is_initialized():
            ray.init(address, namespace=_NAMESPACE, log_to_driver=False, configure_logging=False)
        controller = ray.get_actor(_CONTROLLER, _NAMESPACE)
        details = ray.get(controller.get_serve_instance_details.remote(), timeout=_LOOK_S)
    except (ray.exceptions.RayError, ConnectionError, ValueError) as error:
        raise EngineUnavailable(
            f"Ray Serve of RAY_ADDRESS={address}: {type(error).__name__} {error}: is `hmas fleet "
            "serve` running in that cluster?"
        ) from error
    return {
        app: {
            deployment: [
                RunningReplica(replica["replica_id"], replica["actor_name"])
                for replica in said["replicas"]
                if replica["state"] == "RUNNING"
            ]
            for deployment, said in details_of_app["deployments"].items()
        }
        for app, details_of_app in details["applications"].items()
    }
