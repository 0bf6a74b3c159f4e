"""Is what people write for a server or a fleet understood, and refused with the right form?"""

import pytest

from hmas_agents.config import EngineConfig
from serving.fleet.addresses import DnsName, PodLabel, RayApp, parse_address


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("http://a:8000", ("http://a:8000",)),
        ("http://a:8000/, https://b/v1", ("http://a:8000", "https://b/v1")),
        ("dns://vllm.prod:8000", DnsName("vllm.prod", 8000)),
        ("ray://llm/qwen", RayApp("ray://llm/qwen")),
        ("k8s://prod/app=vllm:8000", PodLabel("prod", "app=vllm", 8000)),
        ("k8s://prod/llm-d.ai/role=decode:80", PodLabel("prod", "llm-d.ai/role=decode", 80)),
        ("k8s://prod/app=vllm,role=decode:80", PodLabel("prod", "app=vllm,role=decode", 80)),
    ],
)
def test_every_form_is_read(text, means):
    assert parse_address(text) == means


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vllm:8000", "'vllm:8000' is no server's URL: write http://HOST:PORT"),
        ("http://a:8000,", "'' is no server's URL"),
        ("http://a:port", "http://a:port"),
        ("http://a,http://a/", "'http://a' is there twice"),
        ("dns://vllm", "write dns://NAME:PORT"),
        ("dns://vllm:8000/v1", "write dns://NAME:PORT"),
        ("ray://", "write ray://APP"),
        ("k8s://llm-d.ai/role=decode:80", "write k8s://NAMESPACE/LABEL=VALUE:PORT"),
        ("k8s://app=vllm:8000", "write k8s://NAMESPACE/LABEL=VALUE:PORT"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_form(text, says):
    with pytest.raises(ValueError, match=says):
        parse_address(text)
    with pytest.raises(ValueError, match="url"):
        EngineConfig(url=text)


def test_a_list_in_the_configuration_is_the_same_as_commas():
    both = EngineConfig.model_validate({"url": ["http://a:1", "http://b:2"]})
    assert both.url == "http://a:1,http://b:2"
