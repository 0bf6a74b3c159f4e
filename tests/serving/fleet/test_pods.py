"""Are the pods of a label the replicas? Asks a fake Kubernetes API server over HTTP."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from serving.engines.protocol import EngineUnavailable
from serving.fleet.addresses import PodLabel
from serving.fleet.pods import pod_finder

WHERE = PodLabel("prod", "app=vllm", 8000)


def pod(name: str, address: str | None, phase: str = "Running", *, ends: bool = False) -> Any:
    meta = {"name": name, "labels": {"app": "vllm"}}
    if ends:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": meta, "status": {"phase": phase, "podIP": address}}


class FakeKubernetes:
    """Answers the one question; `status` other than 200 is a refusal."""

    def __init__(self) -> None:
        self.pods: list[Any] = []
        self.status = 200
        self.asked: list[tuple[str, dict[str, list[str]]]] = []


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Iterator[FakeKubernetes]:
    pytest.importorskip("kubernetes")
    fake = FakeKubernetes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            parts = urlsplit(self.path)
            fake.asked.append((parts.path, parse_qs(parts.query)))
            found = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": fake.pods}
            body = json.dumps(found if fake.status == 200 else {"message": "no"}).encode()
            self.send_response(fake.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(kubeconfig(f"http://127.0.0.1:{httpd.server_port}")))
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    yield fake
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def kubeconfig(server: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    }  # fmt: skip


def test_every_running_pod_of_the_label_is_a_replica(cluster):
    cluster.pods = [
        pod("vllm-0", "10.0.0.1"), pod("vllm-1", "fd00::2"), pod("vllm-2", None, "Pending"),
        pod("vllm-3", "10.0.0.4", "Succeeded"), pod("vllm-4", "10.0.0.5", ends=True),
    ]  # fmt: skip
    assert pod_finder(WHERE)() == {
        "vllm-0": "http://10.0.0.1:8000",
        "vllm-1": "http://[fd00::2]:8000",
    }
    ((path, query),) = cluster.asked
    assert path == "/api/v1/namespaces/prod/pods"
    assert query == {"labelSelector": ["app=vllm"], "resourceVersion": ["0"]}


def test_a_refusal_says_what_the_account_may_lack(cluster):
    cluster.status = 403
    with pytest.raises(EngineUnavailable, match=r"HTTP 403 .*service account list pods"):
        pod_finder(WHERE)()


def test_where_kubernetes_is_unknown_it_is_said(monkeypatch, tmp_path, capsys):
    pytest.importorskip("kubernetes")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(EngineUnavailable, match="set KUBECONFIG, or run in a pod"):
        pod_finder(WHERE)
    assert capsys.readouterr().out == "", "`hmas status --json` prints JSON and nothing else"


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kubernetes", None)
    with pytest.raises(EngineUnavailable, match=r"hmas-scheduler\[kubernetes\]"):
        pod_finder(WHERE)
