"""Is a fleet on Ray Serve steered as one, and a replica that Ray replaces, too? Two real replicas.

Runs where the extra `fleet` is installed. Ray gets a cluster of its own, with more CPUs than there
are: two replicas are to fit on a small machine.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import httpx
import pytest
import yaml

from serving.contracts import Contract, ContractChange, Snapshot
from serving.contracts.contract import TenantTerms
from serving.engines.protocol import EngineUnavailable, RemoteEngine
from serving.fleet.addresses import RayApp
from serving.fleet.connect import connect
from serving.launch.model import SMOLLM2
from tests.serving.samples import decision

pytestmark = [
    pytest.mark.real_vllm,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra fleet"),
]
APP = RayApp("ray://llm")
LIMIT_S = 600.0  # two replicas start on two cores
HMAS = "from hmas_agents.cli import main; main()"


def serve_config(port: int) -> dict[str, object]:
    model = {
        "model_loading_config": {"model_id": "smol", "model_source": str(SMOLLM2)},
        "deployment_config": {"num_replicas": 2, "ray_actor_options": {"num_cpus": 1}},
        "placement_group_config": {"bundles": [{"CPU": 1}]},
        "log_engine_metrics": False,
        "engine_kwargs": {
            "max_model_len": 2048, "max_num_seqs": 16, "dtype": "float32", "enforce_eager": True,
            "additional_config": {"hmas": {"contract": {"believe_clients": True}}},
        },
        "runtime_env": {"env_vars": {
            "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path),
        }},
    }  # fmt: skip
    app = {
        "name": "llm", "route_prefix": "/", "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [model]},
    }  # fmt: skip
    http = {"host": "127.0.0.1", "port": port}
    return {"http_options": http, "applications": [app]}


@pytest.fixture(scope="module")
def ingress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of Ray's ingress in front of two replicas."""
    import ray

    folder = tmp_path_factory.mktemp("ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "serve.yaml").write_text(yaml.safe_dump(serve_config(port)))
    cluster = ray.init(
        num_cpus=6, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False,
        namespace="serve",
    )  # fmt: skip
    command = [sys.executable, "-c", HMAS, "fleet", "serve", str(folder / "serve.yaml"),
               "--token-file", str(folder / "token"), "--route-by-deadline"]  # fmt: skip
    address = cluster.address_info["address"]
    env = os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
        ray.shutdown()


def until(fleet: RemoteEngine, holds: Callable[[Snapshot], bool]) -> tuple[Snapshot, int]:
    """The first snapshot of which this holds, and how many there were; leases are kept up."""
    end_s, looks = time.monotonic() + LIMIT_S, 0
    while time.monotonic() < end_s:
        shot = fleet.snapshot()
        looks += 1
        if holds(shot):
            return shot, looks
        if shot.controller_id:
            fleet.renew(shot.controller_id, 30.0)
        time.sleep(1.0)
    raise AssertionError(f"not within {LIMIT_S} s: {shot.away or [r.replica for r in shot.ranks]}")


def started() -> RemoteEngine:
    fleet, end_s = connect(APP.url, ""), time.monotonic() + LIMIT_S
    while True:
        try:
            if len(fleet.snapshot().ranks) == 2:
                return fleet
        except EngineUnavailable:
            assert time.monotonic() < end_s
        time.sleep(1.0)


def ask(ingress: str, tenant: str, prompt: str) -> None:
    body = {"model": "smol", "prompt": prompt, "max_tokens": 4, "vllm_xargs": {"tenant": tenant}}
    httpx.post(f"{ingress}/v1/completions", json=body, timeout=120).raise_for_status()


def served_by(fleet: RemoteEngine, tenant: str) -> set[str]:
    """The replicas to which a tenant's requests came."""
    fleet.snapshot()
    page = fleet.journal(0)
    return {each.replica for each in page.arrivals if each.tenant == tenant}


def names(shot: Snapshot) -> set[str]:
    return {rank.replica for rank in shot.ranks or (shot,)}


def test_a_talk_stays_with_one_replica_and_many_at_once_are_spread(ingress):
    fleet = started()
    fleet.snapshot()
    talk = "Once upon a time there was a scheduler. " * 30
    for turn in range(6):
        ask(ingress, "talk", talk + "And then? " * turn)
    assert len(served_by(fleet, "talk")) == 1
    with ThreadPoolExecutor(4) as at_once:
        texts = [f"Question {i} is another one. " * 40 for i in range(4)]
        list(at_once.map(ask, [ingress] * 4, ["others"] * 4, texts))
    assert len(served_by(fleet, "others")) == 2


def test_one_decision_steers_all_replicas_and_the_one_that_replaces_a_dead_one(ingress):
    import ray

    from serving.fleet.ray_finder import ray_finder

    fleet = started()
    assert fleet.apply(decision(1, "edf", ttl_s=30.0)).accepted
    terms = Contract(believe_clients=True, tenants={"acme": TenantTerms(weight=2.0)})
    assert fleet.apply_contract(ContractChange(terms, 1, "me")).accepted
    quota = Contract(tenants={"acme": TenantTerms(max_waiting=1)})
    assert "quotas would not be kept" in fleet.apply_contract(ContractChange(quota, 2, "me")).reason

    for _ in range(8):
        ask(ingress, "acme", "a b c")
    before = fleet.snapshot()
    assert {row.tenant: row.finished for row in before.counters}["acme"] == 8
    assert {(rank.policy, rank.contract_epoch) for rank in before.ranks} == {("edf", 1)}

    killed, actor = next(iter(ray_finder(APP)().items()))
    ray.kill(ray.get_actor(actor, "serve"), no_restart=True)
    alone, _ = until(fleet, lambda shot: killed not in names(shot))
    assert alone.controller_id == "me"

    until(fleet, lambda shot: len(shot.ranks) == 2)
    _, looks = until(
        fleet, lambda shot: {(r.policy, r.contract_epoch) for r in shot.ranks} == {("edf", 1)}
    )
    assert looks <= 2
    fleet.release("me")
