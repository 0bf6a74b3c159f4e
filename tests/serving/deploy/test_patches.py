"""Do the patches for production-stack, llm-d and KServe start vLLM with the hook?

Their own charts and resource definitions are not here: what is checked is the part that
Kubernetes knows (containers and their environment), and what the hook needs.
"""

import tomllib

import pytest
import yaml

from serving.launch.vllm_arguments import HOOK, SCHEDULER
from tests.serving.deploy.rendered import DEPLOY, library

FLAG = f"{SCHEDULER}={HOOK}"
PROJECT = tomllib.loads((DEPLOY.parents[1] / "pyproject.toml").read_text())["project"]
# The shape of the Deployments in llm-d's guides: a model server with lists of both.
GUIDE = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "decode"},
    "spec": {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {
            "metadata": {"labels": {"app": "a"}},
            "spec": {
                "containers": [
                    {
                        "name": "modelserver", "image": "vllm", "command": ["vllm", "serve"],
                        "args": ["Qwen/Qwen3-8B", "--max-num-seqs=128"],
                        "env": [{"name": "HOME", "value": "/tmp"}],
                    }
                ]
            },
        },
    },
}  # fmt: skip


def patch(name):
    return yaml.safe_load((DEPLOY / "patches" / f"{name}.yaml").read_text())


def production_stack():
    engine = patch("production-stack")["servingEngineSpec"]["modelSpec"][0]
    return {
        "name": "vllm", "image": f"{engine['repository']}:{engine['tag']}",
        "args": [engine["modelURL"], *engine["vllmConfig"]["extraArgs"]], "env": engine["env"],
    }  # fmt: skip


def llm_d():
    jsonpatch = library("jsonpatch")
    patched = jsonpatch.apply_patch(GUIDE, patch("llm-d"))
    return patched["spec"]["template"]["spec"]["containers"][0]


def kserve():
    service = patch("kserve")
    assert service["kind"] == "LLMInferenceService"
    assert service["apiVersion"] == "serving.kserve.io/v1alpha2"
    container = service["spec"]["template"]["containers"][0]
    assert container["name"] == "main"  # by which it is merged over the preset's
    added = next(item for item in container["env"] if item["name"] == "VLLM_ADDITIONAL_ARGS")
    return {**container, "args": added["value"].split()}


each = pytest.mark.parametrize("container_of", [production_stack, llm_d, kserve])


@each
def test_vllm_gets_the_hook_the_plugins_and_the_token(container_of):
    container = container_of()
    assert container["args"][-1] == FLAG
    env = {item["name"]: item for item in container["env"]}
    plugins = {name for group in PROJECT["entry-points"].values() for name in group}
    assert set(env["VLLM_PLUGINS"]["value"].split(",")) == plugins
    token = env["HMAS_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert token == {"name": "hmas-token", "key": "token"}
    assert container["image"] == f"hmas-vllm:{PROJECT['version']}"


@each
@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_kubernetes_takes_a_pod_with_that_container(container_of, version):
    validate = library("kubernetes_validate").validate
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "spec": {"containers": [container_of()]},
    }  # fmt: skip
    validate(pod, version, strict=True)


def test_the_guides_own_arguments_and_environment_stay():
    container = llm_d()
    assert container["args"][:2] == ["Qwen/Qwen3-8B", "--max-num-seqs=128"]
    assert container["env"][0] == {"name": "HOME", "value": "/tmp"}
