"""Is the fleet what Ray says it is, while replicas come and go and Ray falls silent?"""

import sys

import pytest

from serving.engines.protocol import EngineUnavailable
from serving.fleet.ray_app import RayMissing
from serving.fleet.ray_discovery import EVERY_S, RayReplicas
from serving.fleet.ray_replica import RunningReplica, applications


class Ray:
    """What Ray Serve runs; `away` while it does not say. It is asked `asked` times."""

    def __init__(self, **deployments: str) -> None:
        self.away, self.asked, self.now_s = False, 0, 0.0
        self.deployments = {f"HMASServer:{name}": ids for name, ids in deployments.items()}

    def clock(self):
        return self.now_s

    def __call__(self):
        self.asked += 1
        if self.away:
            raise EngineUnavailable("no answer")
        found = {
            name: [RunningReplica(one, f"SERVE_REPLICA::llm#{name}#{one}") for one in ids]
            for name, ids in self.deployments.items()
        }
        return {"llm": {**found, "OpenAiIngress": [RunningReplica("x", "y")]}, "shop": {}}


def fleet_of(ray, url="ray://llm"):
    return RayReplicas(url, ask=ray, clock=ray.clock)


def test_replicas_come_and_go_and_each_stays_the_same_engine():
    ray = Ray(smol="ab")
    fleet = fleet_of(ray)
    first = dict(fleet.replicas())
    assert list(first) == ["a", "b"]
    ray.deployments["HMASServer:smol"], ray.now_s = "bc", EVERY_S
    second = fleet.replicas()
    assert list(second) == ["b", "c"]
    assert second["b"] is first["b"]


def test_ray_is_asked_once_a_second_however_often_a_controller_looks():
    ray = Ray(smol="ab")
    fleet = fleet_of(ray)
    for _ in range(3):
        assert list(fleet.replicas()) == ["a", "b"]
    assert ray.asked == 1
    ray.now_s = EVERY_S
    assert list(fleet.replicas()) == ["a", "b"]
    assert ray.asked == 2


def test_while_ray_is_silent_the_last_known_replicas_stay():
    ray = Ray(smol="ab")
    fleet = fleet_of(ray)
    known = dict(fleet.replicas())
    ray.away, ray.now_s = True, EVERY_S
    assert fleet.replicas() == known


def test_a_ray_that_never_answered_is_an_error_and_not_an_empty_fleet():
    ray = Ray(smol="ab")
    ray.away = True
    with pytest.raises(EngineUnavailable, match="no answer"):
        fleet_of(ray).replicas()


def test_all_replicas_gone_is_an_empty_fleet_and_not_an_error():
    ray = Ray(smol="a")
    fleet = fleet_of(ray)
    assert fleet.replicas()
    ray.deployments["HMASServer:smol"], ray.now_s = "", EVERY_S
    assert fleet.replicas() == {}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ray://no", "no application 'no'; there are: ray://llm, ray://shop"),
        ("ray://shop", "deploy it with `hmas fleet serve`"),
        ("ray://llm", "say which model's replicas: ray://llm/big, ray://llm/smol"),
        ("ray://llm/none", "say which model's replicas: ray://llm/big, ray://llm/smol"),
    ],
)
def test_what_is_not_there_or_not_one_model_is_named(url, said):
    with pytest.raises(EngineUnavailable, match=said):
        fleet_of(Ray(smol="a", big="b"), url).replicas()


def test_one_of_several_models_is_named_in_the_url():
    fleet = fleet_of(Ray(smol="a", big="b"), "ray://llm/big")
    assert list(fleet.replicas()) == ["b"]


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RayMissing, match=r"hmas-scheduler\[fleet\]"):
        applications()
