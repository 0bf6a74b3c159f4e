"""Which replicas of a Ray Serve application are there now? For `FoundReplicas`, by `ray://APP`.

Replicas come with autoscaling and replacement and go with failures. One that is starting is none
yet.
"""

from collections.abc import Callable, Mapping

from serving.engines.protocol import EngineUnavailable
from serving.fleet.addresses import RAY, RayApp
from serving.fleet.ray_app import SERVER_CLASS
from serving.fleet.ray_replica import Deployments, connect_ray, running_replicas

_OURS = SERVER_CLASS.rpartition(":")[2] + ":"  # Ray puts the class before a deployment's name


def ray_finder(address: RayApp) -> Callable[[], Mapping[str, str]]:
    """Connect with Ray, and give what finds the actors of an application's replicas by name.

    Raises:
        RayMissing, EngineUnavailable: Ray is not installed, or there is no cluster.
    """
    connect_ray()
    return lambda: replicas_of(address, running_replicas())


def replicas_of(address: RayApp, found: Mapping[str, Deployments]) -> Mapping[str, str]:
    """The actors of the replicas at this address, by Ray's names of the replicas.

    Raises:
        EngineUnavailable: there is no such application of ours, or it has several models.
    """
    app, _, model = address.url.removeprefix(RAY).partition("/")
    if app not in found:
        there = ", ".join(f"{RAY}{name}" for name in found) or "none"
        raise EngineUnavailable(f"Ray Serve has no application {app!r}; there are: {there}")
    ours = {
        name.removeprefix(_OURS): replicas
        for name, replicas in found[app].items()
        if name.startswith(_OURS)
    }
    if not ours:
        raise EngineUnavailable("none of its deployments has the hook yet: use `hmas fleet serve`")
    if model in ours:
        return ours[model]
    if model or len(ours) > 1:
        urls = ", ".join(f"{RAY}{app}/{name}" for name in sorted(ours))
        raise EngineUnavailable(f"which model's replicas? Write one of: {urls}")
    return next(iter(ours.values()))
