"""Does the Helm chart render to manifests that Kubernetes takes and that do what they say?"""

import os
import signal
import subprocess
from importlib import metadata
from typing import Any

import pytest
import yaml

from hmas_agents.cli import load_command
from hmas_agents.config import load_config
from serving.contracts.settings import load_contract
from serving.launch.vllm_arguments import read_arguments
from tests.serving.deploy.rendered import (
    CASES,
    CONTRACT,
    DEPLOY,
    TOKEN,
    containers,
    library,
    of_case,
    one,
    pods,
    render,
)

CUSTOM = {"PodMonitor", "PrometheusRule"}  # Prometheus Operator's, in no schema of Kubernetes
DASHBOARDS = DEPLOY.parents[1] / "hmas_agents" / "dashboards"
every_case = pytest.mark.parametrize("case", CASES)


@every_case
@pytest.mark.parametrize("version", ["1.25", "1.31", "1.37"])
def test_kubernetes_takes_every_manifest(case, version):
    validate = library("kubernetes_validate").validate
    for manifest in of_case(case):
        if manifest["kind"] not in CUSTOM:
            validate(manifest, version, strict=True)


@every_case
def test_names_are_unique_and_labels_say_whose_they_are(case):
    named = [(m["kind"], m["metadata"]["name"]) for m in of_case(case)]
    assert len(set(named)) == len(named)
    for manifest in of_case(case):
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == "demo"


@every_case
def test_what_a_pod_mounts_is_there(case):
    there = {(m["kind"], m["metadata"]["name"]) for m in of_case(case)} | {("Secret", "hmas-token")}
    for pod in pods(of_case(case)):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
            if "secret" in volume:
                assert ("Secret", volume["secret"]["secretName"]) in there
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in there


@every_case
def test_our_containers_are_hardened_and_write_to_volumes_only(case):
    ours = [item for item in containers(of_case(case)) if item["name"] != "vllm"]
    assert ours
    for container in ours:
        context = container["securityContext"]
        assert context["runAsNonRoot"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        written = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert "/tmp" in written
        assert {item["name"] for item in container["env"]} >= {"HOME", "HMAS_CACHE"}
        assert container["resources"]["limits"]["memory"]


@every_case
def test_the_controller_can_read_its_configuration(case, tmp_path):
    (tmp_path / "hmas.toml").write_text(
        one(of_case(case), "ConfigMap", "demo-config")["data"]["hmas.toml"]
    )
    config = load_config(tmp_path / "hmas.toml")
    url = CASES[case]["engine"].get("url", "http://127.0.0.1:8000")
    assert config.engine.url == (url if isinstance(url, str) else ",".join(url))
    assert str(config.engine.token_file) == "/run/hmas/token"
    assert str(config.ledger.path) == "/data/ledger.sqlite"
    assert (config.metrics.host, config.metrics.port) == ("0.0.0.0", 9464)
    assert not config.model.enabled
    assert config.control.mode == ("act" if case == "label" else "advise")
    assert config.control.short_tick_s == (1.5 if case == "label" else 2.0)


@every_case
def test_only_a_label_gives_rights_and_only_to_list_pods_there(case):
    manifests = of_case(case)
    roles = [m for m in manifests if m["kind"] in {"Role", "RoleBinding", "ClusterRole"}]
    assert [m["kind"] for m in roles] == (["Role", "RoleBinding"] if case == "label" else [])
    for pod in pods(manifests):
        assert pod["spec"]["automountServiceAccountToken"] == (case == "label")
    if case == "label":
        assert {m["metadata"]["namespace"] for m in roles} == {"serving"}
        assert roles[0]["rules"] == [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
        ]
        account = one(manifests, "ServiceAccount")["metadata"]["name"]
        assert roles[1]["subjects"][0] == {
            "kind": "ServiceAccount", "name": account, "namespace": "prod"
        }  # fmt: skip


def test_the_token_is_made_or_a_secret_of_yours():
    assert one(of_case("sidecar"), "Secret")["stringData"] == {"token": TOKEN}
    assert "Secret" not in {m["kind"] for m in of_case("label")}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no token": ({"engine": {"url": "http://a:1"}, "token": {"value": ""}}, "token"),
    "two tokens": ({"engine": {"url": "http://a:1"}, "token": {"existingSecret": "b"}}, "token"),
    "a short token": ({"engine": {"url": "http://a:1"}, "token": {"value": "short"}}, "token"),
    "no server": ({}, "/engine/url"),
    "no model": ({"mode": "sidecar"}, "/engine/model"),
    "sidecar with URL": (
        {"mode": "sidecar", "engine": {"model": "m", "url": "http://a:1"}}, "/engine/url",
    ),
    "no such form": ({"engine": {"url": "vllm:8000"}}, "/engine/url"),
    "dns without a port": ({"engine": {"url": "dns://vllm"}}, "/engine/url"),
    "label without namespace": ({"engine": {"url": "k8s://app=vllm:8000"}}, "/engine/url"),
    "unknown key": ({"engine": {"url": "http://a:1", "replica": 2}}, "replica"),
    "what the chart sets": (
        {"engine": {"url": "http://a:1"}, "controller": {"config": {"ledger": {"path": "x"}}}},
        "/controller/config/ledger",
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_values_that_cannot_work_are_refused_by_their_key(why):
    helm = library("helm_python")
    values, key = REFUSED[why]
    with pytest.raises(helm.HelmValuesError, match=key):
        render(values)


def test_a_contract_is_put_in_force_once_for_each_content(tmp_path):
    job = one(of_case("label"), "Job")
    arguments = containers([job])[0]["args"]
    assert arguments[:3] == ["contract", "apply", "/etc/contract/contract.toml"]
    command = load_command("contract").commands["apply"]
    known = {option for param in command.params for option in param.opts}
    assert {a.split("=")[0] for a in arguments if a.startswith("--")} <= known
    other = render({**CASES["label"], "contract": CONTRACT.replace("2", "3")})
    assert one(other, "Job")["metadata"]["name"] != job["metadata"]["name"]
    text = one(of_case("label"), "ConfigMap", "demo-contract")["data"]["contract.toml"]
    (tmp_path / "contract.toml").write_text(text)
    assert load_contract(tmp_path / "contract.toml").tenants["acme"].weight == 2.0


@pytest.mark.parametrize("case", ["sidecar", "sidecar with all"])
def test_the_server_is_started_with_options_that_there_are(case):
    vllm, _ = containers(of_case(case))
    assert vllm["command"] == ["hmas", "serve"]
    model, *arguments = vllm["args"]
    assert model == "Qwen/Qwen3-8B"
    assert ("--contract=/etc/contract/contract.toml" in arguments) == (case != "sidecar")
    ours = {option for param in load_command("serve").params for option in param.opts}
    rest = read_arguments([a for a in arguments if a.split("=")[0] not in ours]).rest
    assert rest[:2] == ["--host=0.0.0.0", "--port=8000"]
    assert vllm["env"][0]["name"] == "HMAS_TOKEN"


def test_a_controller_beside_a_server_cannot_take_it_out_of_the_service(tmp_path):
    """The pod stays ready while the agents fail, and ends at once when it is told to."""
    _, controller = containers(of_case("sidecar"))
    assert not {"readinessProbe", "startupProbe", "livenessProbe"} & set(controller)
    hmas = tmp_path / "hmas"
    hmas.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexit 1\n')
    hmas.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    shell, option, script = controller["command"]
    again = script.replace("sleep 5", "sleep 0.01")
    process = subprocess.Popen([shell, option, again], env={"PATH": path})
    calls = tmp_path / "calls"
    while not calls.exists() or len(calls.read_text().splitlines()) < 3:
        assert process.poll() is None
    assert set(calls.read_text().splitlines()) == {"run --config /etc/hmas/hmas.toml"}
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


@pytest.mark.parametrize("case", ["label", "sidecar with all"])
def test_services_and_monitors_find_the_pods_and_their_ports(case):
    manifests = of_case(case)
    served = next(m for m in manifests if m["kind"] == "Deployment")["spec"]
    labels = served["template"]["metadata"]["labels"]
    assert labels == served["selector"]["matchLabels"]
    ports = {
        port["name"]: port["containerPort"]
        for container in served["template"]["spec"]["containers"]
        for port in container["ports"]
    }
    for service in (m["spec"] for m in manifests if m["kind"] == "Service"):
        assert service["selector"].items() <= labels.items()
        assert {port["targetPort"] for port in service["ports"]} <= set(ports)
    watched = one(manifests, "PodMonitor", "demo-controller")["spec"]
    assert watched["selector"]["matchLabels"] == labels
    assert watched["podMetricsEndpoints"][0]["port"] in ports
    engine = one(manifests, "PodMonitor", "demo-engine")["spec"]
    asked = engine["podMetricsEndpoints"][0]
    assert asked["portNumber"] == 8000
    assert asked["relabelings"] == [{"targetLabel": "job", "replacement": "hmas-engine"}]
    config = yaml.safe_load((DASHBOARDS / "prometheus.yml").read_text())
    by_hand = config["scrape_configs"][0]["metric_relabel_configs"][0]
    assert asked["metricRelabelings"][0]["regex"] == by_hand["regex"]
    assert asked["metricRelabelings"][0]["replacement"] == by_hand["replacement"]


def test_dashboard_and_alerts_are_those_of_the_repository():
    manifests = of_case("label")
    dashboard = one(manifests, "ConfigMap", "demo-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    wanted = (DASHBOARDS / "grafana.json").read_text()
    assert dashboard["data"]["hmas.json"].strip() == wanted.strip()
    alerts = one(manifests, "PrometheusRule")
    assert alerts["spec"] == yaml.safe_load((DASHBOARDS / "alerts.yml").read_text())


def test_the_chart_has_the_version_of_the_package():
    chart = yaml.safe_load((DEPLOY / "Chart.yaml").read_text())
    values = yaml.safe_load((DEPLOY / "values.yaml").read_text())
    version = metadata.version("hmas-scheduler")
    assert chart["appVersion"] == chart["version"] == version
    assert {values["controller"]["image"]["tag"], values["engine"]["image"]["tag"]} == {version}


def test_helm_finds_nothing_to_complain_of():
    helm = library("helm_python")
    found = helm.lint(str(DEPLOY), values=CASES["label"])
    assert found["errors"] == []
    assert [item for item in found["messages"] if item["severity"] > 1] == []  # 1: a remark
