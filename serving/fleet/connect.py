"""Which engine stands behind what the configuration or `--url` says? One server, or a fleet."""

import math
from functools import partial
from urllib.parse import urlsplit

from serving.engines.live import LiveEngine
from serving.engines.protocol import RemoteEngine
from serving.fleet.addresses import DnsName, PodLabel, RayApp, parse_address
from serving.fleet.dns_name import find_addresses
from serving.fleet.fleet_engine import LIMIT_S, FleetEngine
from serving.fleet.found_replicas import FoundReplicas
from serving.fleet.pods import pod_finder
from serving.fleet.ray_finder import ray_finder
from serving.fleet.ray_replica import RayReplica
from serving.fleet.replicas import FixedReplicas


def connect(where: str, token: str, look_s: float = math.inf) -> RemoteEngine:
    """The engine at a URL, or the fleet of several; all take the same token.

    Args:
        where: as `addresses` has it.
        token: HMAS_TOKEN of the servers.
        look_s: how long a snapshot may take at most.

    Raises:
        ValueError: it cannot be read.
        EngineUnavailable: Kubernetes or Ray cannot be asked.
        RayMissing: Ray is not installed.
    """
    address = parse_address(where)
    if isinstance(address, tuple) and len(address) == 1:
        return LiveEngine(address[0], token, look_s=look_s)
    limit_s = min(LIMIT_S, look_s)

    def one(url: str) -> LiveEngine:
        return LiveEngine(url, token, timeout_s=limit_s)

    if isinstance(address, DnsName):
        return FleetEngine(FoundReplicas(where, partial(find_addresses, address), one), limit_s)
    if isinstance(address, PodLabel):
        return FleetEngine(FoundReplicas(where, pod_finder(address), one), limit_s)
    if isinstance(address, RayApp):
        ask = partial(RayReplica, timeout_s=limit_s)
        return FleetEngine(FoundReplicas(where, ray_finder(address), ask), limit_s)
    return FleetEngine(FixedReplicas({_name(url): one(url) for url in address}), limit_s)


def _name(url: str) -> str:
    """Host, port and path, which tell the servers of a list apart."""
    parts = urlsplit(url)
    return parts.netloc + parts.path
