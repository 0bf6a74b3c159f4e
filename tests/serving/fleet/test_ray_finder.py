"""Are the replicas of a fleet those that Ray runs with the hook, of one model?"""

import sys

import pytest

from serving.engines.protocol import EngineUnavailable
from serving.fleet.addresses import RayApp, parse_address
from serving.fleet.ray_app import RayMissing
from serving.fleet.ray_finder import ray_finder, replicas_of

ONE = {"HMASServer:smol": {"a": "actor a", "b": "actor b"}, "OpenAiIngress": {"x": "actor x"}}
FOUND: dict[str, dict[str, dict[str, str]]] = {
    "llm": ONE,
    "two": {"HMASServer:smol": {"a": "actor a"}, "HMASServer:big": {"c": "actor c"}},
    "idle": {"HMASServer:smol": {}},
    "shop": {"Cart": {"y": "actor y"}},
}


def found(url):
    address = parse_address(url)
    assert isinstance(address, RayApp)
    return replicas_of(address, FOUND)


def test_the_replicas_are_those_of_the_server_class_with_the_hook():
    assert found("ray://llm") == {"a": "actor a", "b": "actor b"}
    assert found("ray://llm/smol") == found("ray://llm")


def test_one_of_several_models_is_named_in_the_url():
    assert found("ray://two/big") == {"c": "actor c"}


def test_no_replica_at_all_is_an_empty_fleet_and_not_an_error():
    assert found("ray://idle") == {}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ray://no", "no application 'no'; there are: ray://llm, ray://two"),
        ("ray://shop", "has the hook yet: use `hmas fleet serve`"),
        ("ray://two", "Write one of: ray://two/big, ray://two/smol"),
        ("ray://llm/none", "Write one of: ray://llm/smol"),
    ],
)
def test_what_is_not_there_or_not_one_model_is_named(url, said):
    with pytest.raises(EngineUnavailable, match=said):
        found(url)


@pytest.mark.parametrize("url", ["ray://", "ray://a b", "ray:///smol", "ray://a/b/c"])
def test_a_url_that_names_no_application_is_refused(url):
    with pytest.raises(ValueError, match="write ray://APP"):
        parse_address(url)


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RayMissing, match=r"hmas-scheduler\[fleet\]"):
        ray_finder(RayApp("ray://llm"))
