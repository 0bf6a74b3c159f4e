"""Which further servers does a live run measure? Any with the OpenAI completions API, by URL.

SGLang, or vLLM without the hook: no lease, no snapshot, no decisions; what its clients see is
all that is known. `hmas eval run --server NAME=URL` names them; called by `eval_run` and
`live_suite`.
"""

import re
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from evals.live.arm import ArmError
from evals.suite.arms import is_arm
from evals.suite.toml_file import SuiteError
from serving.contracts import TraceRequest

_NAME = re.compile(r"[\w.\-]{1,64}")  # as names in a suite
_VERSION_ROUTES = ("/version", "/server_info")  # vLLM's, SGLang's
# Where servers say how many requests they hold, without having been asked to at start-up.
_COUNT_ROUTES = ("/metrics", "/v1/loads?format=prometheus")  # vLLM's, SGLang's
_COUNTS = frozenset(
    {
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "sglang_num_running_reqs",
        "sglang_num_waiting_reqs",
    }
)
_POLL_S = 0.5
_ANSWER_S = 120.0
# SGLang 0.5.23 looks every 4 s whether the client of a waiting request is still there, and
# aborts a stream 2 s after its client left; a server that does not say gets as much.
SETTLE_S = 8.0


@dataclass(frozen=True, slots=True)
class NamedUrl:
    """One `--server NAME=URL`; the URL without `/v1`."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class PlainServer:
    """A running server without the hook.

    Attributes:
        name: of its arm.
        url: without `/v1`.
        model: as the server names it.
        max_model_len: longest prompt plus output it takes; None where it does not say.
        software: what it is and which version, as far as it says.
    """

    name: str
    url: str
    model: str
    max_model_len: int | None
    software: str

    @property
    def description(self) -> str:
        """As `engine` of a result says it."""
        return f"live {self.name}: {self.model} at {self.url} ({self.software})"


def named_urls(options: Iterable[str], arms: Collection[str]) -> tuple[NamedUrl, ...]:
    """The servers that `--server` names.

    Args:
        options: each NAME=URL.
        arms: of the suite; a name must differ from them, and from every arm there could be.

    Raises:
        SuiteError: names the option and its value.
    """
    named: list[NamedUrl] = []
    for option in options:
        name, equals, url = option.partition("=")
        url = url.rstrip("/").removesuffix("/v1")
        if not equals or not _NAME.fullmatch(name) or not _is_url(url):
            raise SuiteError(
                f"--server {option}: expected NAME=URL, such as sglang=http://127.0.0.1:30000"
            )
        if name in arms or is_arm(name):
            raise SuiteError(f"--server {option}: {name!r} is the name of an arm: choose another")
        if name in {each.name for each in named}:
            raise SuiteError(f"--server {option}: a second server of the name {name!r}")
        named.append(NamedUrl(name, url))
    return tuple(named)


def connect(named: NamedUrl) -> PlainServer:
    """Ask a server what it is.

    Raises:
        ArmError: it does not answer, or lists no model.
    """
    try:
        card = model_card(named.url)
        length = card.get("max_model_len")
        return PlainServer(
            named.name,
            named.url,
            model=str(card["id"]),
            max_model_len=None if length is None else int(length),
            software=f"{card.get('owned_by') or 'unknown'} {_version(named.url)}",
        )
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise ArmError(
            f"--server {named.name}={named.url}: /v1/models: no usable answer ({error}): "
            "is the server up?"
        ) from error


def model_card(base_url: str) -> dict[str, Any]:
    """The first model that a server lists.

    Raises:
        httpx.HTTPError, ValueError, LookupError, TypeError: no usable answer.
    """
    response = httpx.get(f"{base_url}/v1/models", timeout=10)
    response.raise_for_status()
    card: dict[str, Any] = response.json()["data"][0]
    return card


def check_lengths(server: PlainServer, requests: Sequence[TraceRequest]) -> None:
    """Make sure that a server takes requests as long as these.

    Raises:
        ArmError: it would refuse some, which would count as misses of its scheduler.
    """
    longest = max(request.prompt_tokens + request.output_tokens for request in requests)
    if server.max_model_len is not None and longest > server.max_model_len:
        raise ArmError(
            f"--server {server.name}={server.url}: takes {server.max_model_len} tokens, and a "
            f"request has {longest}: start it with a longer context"
        )


def wait_until_at_rest(
    server: PlainServer, wait_s: float = 120.0, settle_s: float = SETTLE_S
) -> None:
    """Wait until a server has no request left and answers a new one.

    Args:
        server: the one that was driven, or shares the machine with it.
        wait_s: how long at most.
        settle_s: how long one is left alone that does not say what it holds.

    Raises:
        ArmError: it does not answer, or still has requests after `wait_s`.
    """
    until = time.monotonic() + wait_s
    while True:
        # First a request of our own: engines count when they step, and one that had all its
        # requests aborted steps no more, so its last figures would stand for ever.
        _ask(server)
        inside = _requests_inside(server.url)
        if inside is None:
            time.sleep(settle_s)
            _ask(server)
        if not inside:
            return
        if time.monotonic() > until:
            raise ArmError(
                f"{server.name}: {inside:g} requests still in {server.url} after {wait_s:g} s"
            )
        time.sleep(_POLL_S)


def _ask(server: PlainServer) -> None:
    body = {"model": server.model, "prompt": [100], "max_tokens": 1, "temperature": 0}
    try:
        response = httpx.post(f"{server.url}/v1/completions", json=body, timeout=_ANSWER_S)
    except httpx.HTTPError as error:
        raise ArmError(
            f"{server.name}: {server.url} does not answer a request: {type(error).__name__} {error}"
        ) from error
    if response.status_code != httpx.codes.OK:
        said = response.text[:200].strip()
        raise ArmError(
            f"{server.name}: {server.url} refuses a request: HTTP {response.status_code} {said}"
        )


def _requests_inside(base_url: str) -> float | None:
    """Requests that a server says are running or waiting; None where it does not say."""
    for route in _COUNT_ROUTES:
        try:
            response = httpx.get(f"{base_url}{route}", timeout=10)
            if response.status_code != httpx.codes.OK:
                continue
            counts = [
                sample.value
                for family in text_string_to_metric_families(response.text)
                for sample in family.samples
                if sample.name in _COUNTS
            ]
        except (httpx.HTTPError, ValueError):
            continue
        if counts:
            return sum(counts)
    return None


def _version(base_url: str) -> str:
    for route in _VERSION_ROUTES:
        try:
            answer = httpx.get(f"{base_url}{route}", timeout=10).raise_for_status().json()
            return str(answer["version"])
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            continue
    return "of unknown version"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket too few
        return False
