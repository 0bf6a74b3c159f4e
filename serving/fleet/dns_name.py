"""Which replicas does a DNS name have? Each address of a headless service is one."""

import socket

from serving.engines.protocol import EngineUnavailable
from serving.fleet.addresses import DnsName


def find_addresses(where: DnsName) -> dict[str, str]:
    """URL by `ADDRESS:PORT`, for each A and AAAA record.

    Raises:
        EngineUnavailable: the name does not resolve.
    """
    try:
        found = socket.getaddrinfo(where.name, where.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise EngineUnavailable(f"does not resolve ({error})") from error
    hosts = {
        f"[{place[0]}]" if family == socket.AF_INET6 else str(place[0])
        for family, _, _, _, place in found
    }
    places = [f"{host}:{where.port}" for host in sorted(hosts)]
    return {place: f"http://{place}" for place in places}
