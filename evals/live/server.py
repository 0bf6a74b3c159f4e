"""Which servers does a live run measure? vLLM with the hook, and any with the same API, by URL.

SGLang, or vLLM without the hook, has no lease, no snapshot and no decisions: what its clients
see is all that is known. `hmas eval run --server NAME=URL` names such servers. What an engine has
counted is in its own counters, and on its /metrics, which follow them.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from evals.arms.steering import ArmError
from evals.live.request_body import ANSWER_TOKENS, STOP_TOKEN, Dialect
from evals.suite.arms import is_arm
from evals.suite.toml_file import SuiteError
from serving.contracts import TenantCounters, TraceRequest
from serving.engines.protocol import Engine, EngineUnavailable

Said = TypeVar("Said")
IDLE_WAIT_S = 120.0
_NAME = re.compile(r"[\w.\-]{1,64}")  # as names in a suite
_VERSION_ROUTES = ("/version", "/server_info")  # vLLM's, SGLang's
# Where servers say how many requests they hold, without having been asked to at start-up.
_COUNT_ROUTES = ("/metrics", "/v1/loads?format=prometheus")  # vLLM's, SGLang's
_COUNTS = {
    "vllm:num_requests_running", "vllm:num_requests_waiting",
    "sglang_num_running_reqs", "sglang_num_waiting_reqs",
}  # fmt: skip
_POLL_S = 0.5
_ANSWER_S = 120.0
# SGLang 0.5.23 looks every 4 s whether the client of a waiting request is still there, and
# aborts a stream 2 s after its client left; a server that does not say gets as much.
SETTLE_S = 8.0
Totals = dict[str, Counter[str]]  # requests since the engine's start, by counter and tenant
_COUNTERS = ("received", "finished", "aborted")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str  # without `/v1`
    model: str  # as the server names it
    engine: Engine | None = None  # of vLLM with the hook; None without it
    name: str = ""  # of its arm; with the hook it serves every arm of the suite
    # Longest prompt plus output it takes; None where it does not say.
    max_model_len: int | None = None
    software: str = ""  # what it is and which version, as far as it says
    # It has `AnswerLength`, so that it need not be told how long answers are.
    ends_answers: bool = False
    dialect: Dialect = "openai"  # what its requests may say

    @property
    def description(self) -> str:
        """As `engine` of a result says it."""
        if self.engine is not None:
            return f"live {self.model}"
        return f"live {self.name}: {self.model} at {self.url} ({self.software})"

    def told_tokens(self, request: TraceRequest, longest: int) -> int | None:
        """`max_tokens` that the engine may know; None: only the true length ends the answer.

        `longest`: answer of the workload, which stands for what a user allows, as in the
        simulator.
        """
        if not self.ends_answers:
            return None
        most = request.max_tokens or longest
        if self.max_model_len is not None:
            most = min(most, self.max_model_len - request.prompt_tokens)
        return max(most, request.output_tokens)


def named_urls(options: Iterable[str], arms: Collection[str]) -> dict[str, str]:
    """The URLs, without `/v1`, by name, of the servers that `--server` names.

    Each option is NAME=URL; a name must differ from `arms` and from every arm there could be.

    Raises:
        SuiteError: names the option and its value.
    """
    named: dict[str, str] = {}
    for option in options:
        name, equals, url = option.partition("=")
        url = url.rstrip("/").removesuffix("/v1")
        if not equals or not _NAME.fullmatch(name) or not is_url(url):
            raise SuiteError(
                f"--server {option}: expected NAME=URL, such as sglang=http://127.0.0.1:30000"
            )
        if name in arms or is_arm(name):
            raise SuiteError(f"--server {option}: {name!r} is the name of an arm: choose another")
        if name in named:
            raise SuiteError(f"--server {option}: a second server of the name {name!r}")
        named[name] = url
    return named


def connect(url: str, engine: Engine | None = None, name: str = "") -> Server:
    """Ask a running server what it is, and try whether it ends answers; of its models the first.

    Raises:
        ArmError: it does not answer, or lists no model.
    """
    try:
        response = httpx.get(f"{url}/v1/models", timeout=10)
        card = response.raise_for_status().json()["data"][0]
        model, length = str(card["id"]), card.get("max_model_len")
        most = None if length is None else int(length)
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        where = f"--server {name}={url}: " if name else f"{url}"
        raise ArmError(
            f"{where}/v1/models: no usable answer ({error}): is the server up?"
        ) from error
    version = _first_said(url, _VERSION_ROUTES, lambda answer: str(answer.json()["version"]))
    software = f"{card.get('owned_by') or 'unknown'} {version or 'of unknown version'}"
    dialect: Dialect = "openai" if engine is None else "vllm"
    listed = Server(url, model, engine, name, most, software, dialect=dialect)
    answered = {"max_tokens": 3, "stop_token_ids": [STOP_TOKEN], "ignore_eos": True,
                "vllm_xargs": {ANSWER_TOKENS: 2}}  # fmt: skip
    try:
        said = _ask(listed, answered).raise_for_status().json()
        return replace(listed, ends_answers=said["usage"]["completion_tokens"] == 2)
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        return listed


def check_lengths(server: Server, requests: Sequence[TraceRequest]) -> None:
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
    server: Server, wait_s: float = IDLE_WAIT_S, settle_s: float = SETTLE_S
) -> None:
    """Wait until a server has no request left; without the hook, also until it answers a new one.

    One that does not say what it holds is left alone for `settle_s`. With the hook, one that is
    too busy to answer is asked again.

    Raises:
        ArmError: without the hook it does not answer, or it still has requests after `wait_s`.
        EngineUnavailable: with the hook it still does not answer after `wait_s`.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            if not (inside := _inside(server, settle_s)):
                return
            trouble: RuntimeError = ArmError(
                f"{server.name or server.model}: {inside:g} requests still in {server.url} after "
                f"{wait_s:g} s"
            )
        except EngineUnavailable as error:
            trouble = error
        if time.monotonic() > until:
            raise trouble
        time.sleep(_POLL_S)


def _inside(server: Server, settle_s: float) -> float:
    """Requests that a server holds."""
    if server.engine is not None:
        snapshot = server.engine.snapshot()
        return snapshot.queue.waiting + snapshot.batch.running
    # First a request of our own: engines count when they step, and one that had all its
    # requests aborted steps no more, so its last figures would stand for ever.
    _check_answer(server)
    if (inside := _first_said(server.url, _COUNT_ROUTES, _counted)) is None:
        time.sleep(settle_s)
        _check_answer(server)
    return inside or 0


def _check_answer(server: Server) -> None:
    try:
        response = _ask(server, {"max_tokens": 1})
    except httpx.HTTPError as error:
        raise ArmError(
            f"{server.name}: {server.url} does not answer a request: {type(error).__name__} {error}"
        ) from error
    if response.status_code != httpx.codes.OK:
        said = response.text[:200].strip()
        raise ArmError(
            f"{server.name}: {server.url} refuses a request: HTTP {response.status_code} {said}"
        )


def _ask(server: Server, more: dict[str, Any]) -> httpx.Response:
    body = {"model": server.model, "prompt": [100], "temperature": 0, **more}
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=_ANSWER_S)


def _first_said(
    base_url: str, routes: Sequence[str], read: Callable[[httpx.Response], Said | None]
) -> Said | None:
    """What the first of several routes says; None where none does."""
    for route in routes:
        try:
            said = read(httpx.get(f"{base_url}{route}", timeout=10).raise_for_status())
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            continue
        if said is not None:
            return said
    return None


def _counted(response: httpx.Response) -> float | None:
    """Requests that a server says are running or waiting; None where it does not say."""
    counts = [
        sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.name in _COUNTS
    ]
    return sum(counts) if counts else None


def is_url(text: str) -> bool:
    """Whether a text is one URL of a server."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket too few
        return False


def engine_totals(counters: Iterable[TenantCounters]) -> Totals:
    """The totals in the counters of a snapshot."""
    totals: Totals = {name: Counter() for name in _COUNTERS}
    for row in counters:
        for name, tenants in totals.items():
            tenants[row.tenant] += getattr(row, name)
    return totals


def exported_totals(url: str, settle_s: float = 2.5) -> Totals:
    """The totals on the /metrics of a server, which follows its engine once a second."""
    time.sleep(settle_s)
    totals: Totals = {name: Counter() for name in _COUNTERS}
    text = httpx.get(f"{url}/metrics", timeout=30, follow_redirects=True).text
    for family in text_string_to_metric_families(text):
        name = family.name.removeprefix("hmas_requests_")
        if name in totals and name != family.name:
            for sample in family.samples:
                totals[name][sample.labels["tenant"]] += int(sample.value)
    return totals
