"""Is anything traced? Reads the configuration and the environment; called by `hmas run`.

OpenTelemetry is imported only where an endpoint is configured.
"""

import logging
import os
from collections.abc import Callable, Mapping

from hmas_agents.config import TelemetryConfig
from hmas_agents.telemetry.tracing import Tracing

logger = logging.getLogger(__name__)

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class TelemetryError(RuntimeError):
    """Tracing is configured and cannot be started; says what to install."""


def open_tracing(
    config: TelemetryConfig, instance: str, environ: Mapping[str, str] = os.environ
) -> Tracing | None:
    """Start tracing if an endpoint is configured, here or in the environment; else None.

    Args:
        config: what is configured here.
        instance: name of this controller among others.
        environ: OpenTelemetry's variables.

    Raises:
        TelemetryError: `telemetry.otlp_endpoint` is set and OpenTelemetry is not installed.
            An endpoint of the environment, which may be meant for others, only warns.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    configured = config.otlp_endpoint.rstrip("/")
    inherited = next((key for key in ENDPOINT_VARIABLES if environ.get(key)), "")
    if not configured and not inherited:
        return None
    protocol = next((environ[key] for key in PROTOCOL_VARIABLES if environ.get(key)), "")
    if not configured and protocol == "grpc":
        logger.warning(
            "%s is for gRPC, H-MAS sends OTLP over HTTP: no spans; set telemetry.otlp_endpoint",
            inherited,
        )
        return None
    try:
        start = _starter()
    except ImportError as error:
        problem = f"OpenTelemetry is not installed ({error.name}): pip install -e '.[otel]'"
        if configured:
            raise TelemetryError(f"telemetry.otlp_endpoint {configured!r}: {problem}") from error
        logger.warning("%s is set, no spans: %s", inherited, problem)
        return None
    url = f"{configured}/v1/traces" if configured else None
    return start(url, configured or environ[inherited], instance, config.prompt_content)


def _starter() -> Callable[[str | None, str, str, bool], Tracing]:
    from hmas_agents.telemetry.otlp import start_tracing

    return start_tracing
