"""What may be written where a server's URL is asked for, and what does it mean?

`http://HOST:PORT` is one server. Several of them with commas, `dns://NAME:PORT`,
`k8s://NAMESPACE/LABEL=VALUE:PORT` and `ray://APP` are fleets. Read by the configuration and by
`connect`.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_K8S = re.compile(r"k8s://(?P<namespace>[a-z0-9-]+)/(?P<selector>[^:]+):(?P<port>\d+)")
RAY = "ray://"
_RAY = re.compile(r"ray://[^\s/,]+(/[^\s/,]+)?")
_FORMS = (
    "write http://HOST:PORT, several of them with commas, dns://NAME:PORT, "
    "k8s://NAMESPACE/LABEL=VALUE:PORT or ray://APP"
)


@dataclass(frozen=True, slots=True)
class DnsName:
    """Every address that the name has is a replica, at this port."""

    name: str
    port: int


@dataclass(frozen=True, slots=True)
class PodLabel:
    """Every running pod in the namespace that the label selector finds, at this port."""

    namespace: str
    selector: str
    port: int


@dataclass(frozen=True, slots=True)
class RayApp:
    """Every running replica of an application of Ray Serve: `ray://APP`, `ray://APP/MODEL`."""

    url: str


Address = tuple[str, ...] | DnsName | PodLabel | RayApp


def address_text(value: object) -> object:
    """A value of the configuration as one text; of a list the URLs with commas.

    Raises:
        ValueError: it is a text, and no address.
    """
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        value = ",".join(value)
    if isinstance(value, str):
        parse_address(value)
    return value


def parse_address(text: str) -> Address:
    """Where the servers are: their URLs, or how they are found.

    Raises:
        ValueError: says what is wrong and what may be written.
    """
    text = text.strip()
    if text.startswith("k8s://"):
        if not (found := _K8S.fullmatch(text)):
            raise ValueError(f"{text!r}: write k8s://NAMESPACE/LABEL=VALUE:PORT")
        return PodLabel(found["namespace"], found["selector"], int(found["port"]))
    if text.startswith(RAY):
        if not _RAY.fullmatch(text):
            raise ValueError(f"{text!r}: write ray://APP, or ray://APP/MODEL where it has several")
        return RayApp(text)
    if text.startswith("dns://"):
        host, port = _host_and_port(text)
        if not host or port is None or text.count("/") > 2:
            raise ValueError(f"{text!r}: write dns://NAME:PORT")
        return DnsName(host, port)
    urls = tuple(url.strip().rstrip("/") for url in text.split(","))
    for url in urls:
        if not url.startswith(("http://", "https://")) or not _host_and_port(url)[0]:
            raise ValueError(f"{url!r} is no server's URL: {_FORMS}")
    if twice := sorted({url for url in urls if urls.count(url) > 1}):
        raise ValueError(f"{twice[0]!r} is there twice: name each server once")
    return urls


def _host_and_port(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}: {_FORMS}") from error
