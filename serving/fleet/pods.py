"""Which replicas does a label of Kubernetes have? Each running pod is one.

Asks through the official client, in a pod as its service account, which needs `list` on `pods` in
that namespace, elsewhere as whoever the kubeconfig names.
"""

import os
from collections.abc import Callable
from typing import Any

from serving.engines.protocol import EngineUnavailable
from serving.fleet.addresses import PodLabel

_TIMEOUT_S = 5.0


def pod_finder(where: PodLabel) -> Callable[[], dict[str, str]]:
    """A function that gives URL by name of pod. It raises EngineUnavailable.

    Raises:
        EngineUnavailable: there is no client, or it does not know where Kubernetes is.
    """
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise EngineUnavailable(
            "a label of Kubernetes needs its client: pip install 'hmas-scheduler[kubernetes]'"
        ) from error
    try:
        config.load_incluster_config()
    except config.ConfigException:  # not in a pod
        try:
            config.load_kube_config(os.environ.get("KUBECONFIG"))
        except config.ConfigException as error:
            raise EngineUnavailable(
                f"Kubernetes is unknown here ({error}): set KUBECONFIG, or run in a pod"
            ) from error
    core = client.CoreV1Api()

    def find() -> dict[str, str]:
        try:
            # Version 0: as the API server has it in its cache, which costs it next to nothing.
            pods = core.list_namespaced_pod(
                where.namespace, label_selector=where.selector, resource_version="0",
                _request_timeout=_TIMEOUT_S,
            )  # fmt: skip
        except client.ApiException as error:
            todo = "may the service account list pods there?" if error.status == 403 else ""
            raise EngineUnavailable(f"HTTP {error.status} {error.reason} {todo}".strip()) from error
        except Exception as error:  # urllib3's own, whichever the client brings
            raise EngineUnavailable(f"Kubernetes does not answer: {error}") from error
        return {
            pod.metadata.name: f"http://{_host(pod.status.pod_ip)}:{where.port}"
            for pod in pods.items
            if _runs(pod)
        }

    return find


def _runs(pod: Any) -> bool:
    """Also one that is not ready: a decision is for those that are overloaded, too."""
    ends = pod.metadata.deletion_timestamp is not None
    return bool(pod.status.phase == "Running" and pod.status.pod_ip and not ends)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
