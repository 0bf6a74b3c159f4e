"""Are replicas of a real Ray Serve found, asked and given up? Without vLLM: fake engine cores.

Runs where the extra `fleet` is installed, in a small cluster of its own.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from serving.compat import call_every_core
from serving.engines.protocol import EngineUnavailable
from serving.fleet.addresses import RayApp
from serving.fleet.ray_finder import ray_finder
from serving.fleet.ray_replica import RayReplica
from tests.serving.samples import decision
from tests.serving.served_ranks import EngineClient

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra fleet")


class HMASServer:
    """The method of Ray's server with the hook, over two fake ranks."""

    def __init__(self) -> None:
        self.client = EngineClient(ranks=2)

    async def hmas_call(self, method: str, payload: dict[str, Any]) -> list[dict[str, Any]]:
        if method == "late":
            await asyncio.sleep(60)
        return await call_every_core(self.client, "hmas_call", method, payload)


@pytest.fixture(scope="module")
def find():
    """What finds the two replicas of the application `llm`."""
    import ray
    from ray import serve

    env = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
    ray.init(num_cpus=4, object_store_memory=100 * 2**20, include_dashboard=False,
             log_to_driver=False, namespace="serve", runtime_env=env)  # fmt: skip
    deployment = serve.deployment(HMASServer, name="HMASServer:smol", num_replicas=2)
    serve.run(deployment.bind(), name="llm", route_prefix=None)
    yield ray_finder(RayApp("ray://llm"))
    serve.shutdown()
    ray.shutdown()


def wait_for(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.2)


def test_each_replica_is_asked_by_itself_and_all_its_ranks_answer(find):
    one, other = (RayReplica(actor) for actor in find().values())
    assert one.apply(decision(1, "edf")).accepted
    assert [rank.policy for rank in one.snapshot().ranks] == ["edf", "edf"]
    assert [rank.policy for rank in other.snapshot().ranks] == ["fcfs", "fcfs"]
    assert one.journal(0).arrivals == ()


def test_a_message_that_does_not_fit_and_a_late_answer_are_errors_that_name_the_replica(find):
    actor = next(iter(find().values()))
    replica = RayReplica(actor)
    with pytest.raises(EngineUnavailable, match="no_such: unknown method 'no_such'"):
        replica.ask("no_such", {}, 10.0)
    with pytest.raises(EngineUnavailable, match="GetTimeoutError"):
        replica.ask("late", {}, 0.1)


def test_a_replica_that_died_is_an_error_then_gone_and_the_one_in_its_place_is_found(find):
    import ray

    before = find()
    name, actor = next(iter(before.items()))
    replica = RayReplica(actor)
    assert replica.snapshot()
    ray.kill(ray.get_actor(actor, "serve"), no_restart=True)
    with pytest.raises(EngineUnavailable, match="ActorDied"):
        replica.snapshot()
    with pytest.raises(EngineUnavailable, match=actor):
        RayReplica(actor).snapshot()
    wait_for(lambda: name not in find())
    wait_for(lambda: len(find()) == 2)
    (new,) = find().keys() - before.keys()
    assert [rank.policy for rank in RayReplica(find()[new]).snapshot().ranks] == ["fcfs", "fcfs"]
