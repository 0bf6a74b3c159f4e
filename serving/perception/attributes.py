"""Whose request is it, and what was it promised? Tenant and SLO from `vllm_xargs`.

Called once per request by the scheduler hook. Nothing a client sends can raise
here: what does not fit is ignored and the default class applies.
"""

import math
from collections.abc import Mapping
from typing import Any

from serving.contracts import SLO
from serving.settings import EngineSettings

_NAME_LENGTH = 64
_LARGEST_MS = 86_400_000.0


def tenant_of(extra: Mapping[str, Any], lora_name: str | None, settings: EngineSettings) -> str:
    """The tenant: as claimed if claims are trusted, else the LoRA name, else `default`."""
    claimed = extra.get("tenant")
    if settings.trust_client_tenant and isinstance(claimed, str) and claimed.strip():
        return claimed.strip()[:_NAME_LENGTH]
    return lora_name[:_NAME_LENGTH] if lora_name else "default"


def slo_of(extra: Mapping[str, Any], settings: EngineSettings) -> tuple[str, SLO]:
    """SLO class and targets: explicit `slo_*_ms` first, then `slo_class`, then the default."""
    explicit = [_target(extra.get(key)) for key in ("slo_ttft_ms", "slo_tpot_ms", "slo_e2e_ms")]
    if any(value is not None for value in explicit):
        return "custom", SLO(*explicit)
    name = extra.get("slo_class")
    if isinstance(name, str) and (slo := settings.slo_of(name)) is not None:
        return name, slo
    default = settings.default_slo_class
    return default, settings.slo_of(default) or SLO()


def deadline_s(slo: SLO, arrival_s: float, decode_s: float) -> float:
    """When the first token is due: a + S, or a + E - L*P when only the end is promised.

    `decode_s` is the predicted seconds of decoding, L*P. Infinity without an SLO.
    """
    due = math.inf
    if slo.ttft_ms is not None:
        due = arrival_s + slo.ttft_ms / 1000
    if slo.e2e_ms is not None:
        due = min(due, arrival_s + max(slo.e2e_ms / 1000 - decode_s, 0.0))
    return due


def _target(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return min(number, _LARGEST_MS) if math.isfinite(number) and number > 0 else None
