"""How are the replicas of Ray Serve found and asked? The one file that touches what Ray may change.

Ray's own way to all replicas (`broadcast`, experimental) waits without a limit and fails for all
when one has died. This makes the same call to one replica, within a time limit.
"""

import os
import pickle
import uuid
from collections.abc import Mapping
from typing import Any

from serving.engines.asked import AskedEngine
from serving.engines.protocol import EngineUnavailable
from serving.fleet.ray_app import RayMissing

_NAMESPACE, _CONTROLLER = "serve", "SERVE_CONTROLLER_ACTOR"
_LOOK_S = 10.0  # Ray's controller answers between two of its own rounds
Deployments = Mapping[str, Mapping[str, str]]  # actor names by deployment and replica


class RayReplica(AskedEngine):
    """The engine inside one replica; calls count as requests of its `max_ongoing_requests`.

    Args:
        actor_name: Ray's name for the replica's actor.
        timeout_s: of every call.
    """

    def __init__(self, actor_name: str, timeout_s: float = 30.0) -> None:
        super().__init__(timeout_s)
        self._actor_name = actor_name
        self._actor: Any = None

    def place(self, method: str) -> str:
        """Ray's name of the replica, and the method."""
        return f"{self._actor_name}, {method}"

    def ask(self, method: str, payload: dict[str, Any], limit_s: float) -> list[dict[str, Any]]:
        """The answers of the engine cores inside the replica."""
        import ray
        from ray.exceptions import RayError
        from ray.serve._private.common import RequestMetadata

        name = f"hmas-{uuid.uuid4()}"
        call = pickle.dumps(RequestMetadata(name, name, call_method="hmas_call"))
        try:
            if self._actor is None:
                self._actor = ray.get_actor(self._actor_name, _NAMESPACE)
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

    def close(self) -> None:
        """Let go of the actor; the connection with Ray is the process's."""
        self._actor = None


def connect_ray() -> None:
    """Connect this process with the cluster of RAY_ADDRESS, else with the one on this machine.

    Raises:
        RayMissing: the extra is not installed.
        EngineUnavailable: there is no cluster.
    """
    try:
        import ray
        import ray.serve
    except ImportError as error:
        raise RayMissing from error
    address = os.environ.get("RAY_ADDRESS") or "auto"
    if ray.is_initialized():
        return
    try:
        ray.init(address, namespace=_NAMESPACE, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError) as error:
        raise EngineUnavailable(
            f"no Ray cluster at RAY_ADDRESS={address}: {error}: start one with `hmas fleet serve`"
        ) from error


def running_replicas() -> dict[str, Deployments]:
    """What Ray Serve counts as running, by application: actor names by deployment and replica.

    Raises:
        EngineUnavailable: no Ray Serve in the cluster, or no answer from it.
    """
    import ray
    from ray.exceptions import RayError

    try:
        controller = ray.get_actor(_CONTROLLER, _NAMESPACE)
        details = ray.get(controller.get_serve_instance_details.remote(), timeout=_LOOK_S)
    except (RayError, ValueError) as error:
        raise EngineUnavailable(
            f"Ray Serve's controller: {type(error).__name__} {error}: is `hmas fleet serve` "
            "running in this cluster?"
        ) from error
    return {
        app: {
            deployment: {
                each["replica_id"]: each["actor_name"]
                for each in said["replicas"]
                if each["state"] == "RUNNING"
            }
            for deployment, said in details_of_app["deployments"].items()
        }
        for app, details_of_app in details["applications"].items()
    }
