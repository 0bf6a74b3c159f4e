"""What does Helm make of the chart? Read by the tests of the chart.

helm-python-sdk is Helm's own Go library with Python around it, so what is tested is what
`helm install` would send.
"""

import copy
import functools
import importlib
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[3] / "serving" / "deploy"
TOKEN = "a-token-of-24-characters"
CONTRACT = "[tenants.acme]\nweight = 2.0\n"

Manifest = dict[str, Any]

# Every way to install: what an operator would write into values.yaml.
CASES: dict[str, dict[str, Any]] = {
    "one server": {"engine": {"url": "http://vllm:8000"}},
    "several servers": {"engine": {"url": ["http://a:8000", "http://b:8000/v1"]}},
    "headless service": {"engine": {"url": "dns://vllm.serving.svc:8000"}},
    "label": {
        "engine": {"url": "k8s://serving/app.kubernetes.io/name=vllm:8000"},
        "controller": {"mode": "act", "config": {"control": {"short_tick_s": 1.5}}},
        "contract": CONTRACT,
        "ledger": {"claim": {"enabled": True, "storageClassName": "fast"}},
        "monitor": {"enabled": True, "labels": {"release": "p"}, "engineLabels": {"app": "vllm"}},
        "token": {"existingSecret": "hmas-token", "value": ""},
    },
    "sidecar": {"mode": "sidecar", "engine": {"model": "Qwen/Qwen3-8B"}},
    "sidecar with all": {
        "mode": "sidecar",
        "engine": {
            "model": "Qwen/Qwen3-8B", "replicas": 3, "args": ["--max-num-seqs", "128"],
            "env": [{"name": "HF_TOKEN", "value": "x"}], "securityContext": {"runAsUser": 1000},
        },
        "contract": CONTRACT,
        "monitor": {"enabled": True},
    },
}  # fmt: skip


def absent(what: str) -> NoReturn:
    """Skip the test for want of something of the extra `dev`; in CI that is a failure."""
    reason = f"{what} is not installed: run `make setup`"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def library(name: str) -> Any:
    """A library that only these tests use."""
    try:
        return importlib.import_module(name)
    except ImportError:
        absent(name)


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, table by table, as Helm merges files of values."""
    out = copy.deepcopy(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


def render(values: dict[str, Any]) -> list[Manifest]:
    """The manifests of a release `demo` in the namespace `prod`, with a token unless given.

    Raises:
        helm_python.HelmError: the schema refuses the values, or a template fails.
    """
    helm = library("helm_python")
    with helm.Chart.load(str(DEPLOY)) as chart:
        files = chart.render(
            merged({"token": {"value": TOKEN}}, values), name="demo", namespace="prod",
            is_install=True,
        )  # fmt: skip
    texts = [text for name, text in sorted(files.items()) if name.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


@functools.cache
def of_case(name: str) -> list[Manifest]:
    """The manifests of a case; rendered once."""
    return render(CASES[name])


def one(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The one manifest of that kind, and of that name if it is given."""
    found = [m for m in manifests if m["kind"] == kind and name in {"", m["metadata"]["name"]}]
    assert len(found) == 1, (kind, name, [m["metadata"]["name"] for m in found])
    return found[0]


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """The pod templates of Deployments and Jobs."""
    return [m["spec"]["template"] for m in manifests if m["kind"] in {"Deployment", "Job"}]


def containers(manifests: list[Manifest]) -> list[Manifest]:
    """All containers of all pods."""
    return [item for pod in pods(manifests) for item in pod["spec"]["containers"]]
