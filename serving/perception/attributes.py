"""Whose request is it, and what was it promised? Tenant and SLO from `vllm_xargs`.

Called once per request by the scheduler hook, and by the gateway middleware, which
signs the tenants it names. Nothing a client sends can raise here: what does not
fit is ignored and the default class applies.
"""

import hmac
import math
import os
from collections.abc import Mapping
from typing import Any

from serving.contracts import SLO
from serving.settings import EngineSettings

_NAME_LENGTH = 64
_LARGEST_MS = 86_400_000.0


def tenant_name(claimed: object) -> str | None:
    """A claimed name without outer spaces, at most 64 characters; None if there is none."""
    return (claimed.strip()[:_NAME_LENGTH].strip() or None) if isinstance(claimed, str) else None


def sign_tenant(tenant: str) -> str:
    """The middleware's proof that it named `tenant`, as `vllm_xargs.tenant_proof` carries it.

    HMAC-SHA256 under HMAS_TOKEN, which the processes of one server share and clients do
    not know. So a claim that took any way around the middleware is not believed. Empty,
    and worth nothing, where HMAS_TOKEN is not set.
    """
    key = os.environ.get("HMAS_TOKEN", "").encode()
    text = b"hmas tenant " + tenant.encode("utf-8", "surrogatepass")
    return hmac.digest(key, text, "sha256").hex() if key else ""


def tenant_of(extra: Mapping[str, Any], lora_name: str | None, settings: EngineSettings) -> str:
    """The tenant: as the gateway says, or the client where believed; LoRA name; `default`."""
    claimed = tenant_name(extra.get("tenant"))
    if claimed and (settings.believes_clients or _signed(claimed, extra, settings)):
        return claimed
    return tenant_name(lora_name) or "default"


def slo_of(extra: Mapping[str, Any], settings: EngineSettings) -> tuple[str, SLO]:
    """SLO class and targets: explicit `slo_*_ms` first, then `slo_class`, then the default."""
    explicit = [target_ms(extra.get(key)) for key in ("slo_ttft_ms", "slo_tpot_ms", "slo_e2e_ms")]
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


def target_ms(value: object) -> float | None:
    """A claimed target in milliseconds, at most a day; None unless finite and positive."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return min(number, _LARGEST_MS) if math.isfinite(number) and number > 0 else None


def _signed(tenant: str, extra: Mapping[str, Any], settings: EngineSettings) -> bool:
    given = extra.get("tenant_proof")
    if settings.gateway == "off" or not isinstance(given, str):
        return False
    proof = sign_tenant(tenant).encode()
    return bool(proof) and hmac.compare_digest(given.encode("utf-8", "surrogatepass"), proof)
