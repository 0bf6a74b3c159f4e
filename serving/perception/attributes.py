"""Whose request is it, and what was it promised? Tenant and SLO from `vllm_xargs`.

Called once per request by the scheduler hook, and by the gateway middleware, which
signs the tenants it names. Nothing a client sends can raise here: what does not
fit is ignored and the default class applies.
"""

import hmac
import math
import os
import time
from collections.abc import Mapping
from typing import Any, Literal

from serving.contracts import SLO, Contract, tenant_name
from serving.contracts.contract import ANONYMOUS, CUSTOM
from serving.contracts.settings import EngineSettings

PROOF_LASTS_S = 300.0
_CLOCK_SKEW_S = 30.0  # of a controller on another machine
_LONGEST_PROOF = 200
_LARGEST_MS = 86_400_000.0
Signer = Literal["own", "named"]
_SIGNERS = ("own", "named")
_TARGETS, _NO_TARGETS = ("slo_ttft_ms", "slo_tpot_ms", "slo_e2e_ms", "slo_itl_ms"), SLO()


def sign_tenant(tenant: str, token: str = "", signer: Signer = "own") -> str:
    """A proof that a holder of HMAS_TOKEN named `tenant` now, as `vllm_xargs.tenant_proof`.

    HMAC-SHA256 under HMAS_TOKEN, which the processes of one server share and clients do
    not know. So a claim that took any way around the middleware is not believed. It holds for
    `PROOF_LASTS_S` only, for what is seen of it could be sent again. Empty, and worth nothing,
    where HMAS_TOKEN is not set.

    Args:
        tenant: its name.
        token: in place of HMAS_TOKEN.
        signer: `named` by the API server's middleware, which takes no such proof from a client,
            or a request of the token holder's `own`.
    """
    return _proof(tenant, token, signer, str(int(time.time())))


def _proof(tenant: str, token: str, signer: str, at_s: str) -> str:
    key = (token or os.environ.get("HMAS_TOKEN", "")).encode()
    text = f"hmas {signer} {at_s} {tenant}".encode("utf-8", "surrogatepass")
    return f"{signer}.{at_s}.{hmac.digest(key, text, 'sha256').hex()}" if key else ""


def tenant_of(extra: Mapping[str, Any], lora_name: str | None, settings: EngineSettings) -> str:
    """The tenant: as signed, or as the client claims where believed; LoRA name; `default`."""
    if (signed := signed_tenant(extra)) is not None:
        return signed
    claimed = tenant_name(extra.get("tenant")) if settings.contract.believe_clients else None
    return claimed or tenant_name(lora_name) or ANONYMOUS


def signed_tenant(extra: Mapping[str, Any], only: Signer | None = None) -> str | None:
    """The tenant that a holder of HMAS_TOKEN vouches for; None if nobody does.

    `only`: what the other signer has signed does not count.
    """
    claimed, given = tenant_name(extra.get("tenant")), extra.get("tenant_proof")
    if claimed is None or not isinstance(given, str) or len(given) > _LONGEST_PROOF:
        return None
    signer, _, rest = given.partition(".")
    at_s = rest.partition(".")[0]
    if signer not in ((only,) if only else _SIGNERS) or not (at_s.isascii() and at_s.isdigit()):
        return None
    proof = _proof(claimed, "", signer, at_s).encode()
    right = hmac.compare_digest(given.encode("utf-8", "surrogatepass"), proof)
    is_new = -_CLOCK_SKEW_S <= time.time() - int(at_s) <= PROOF_LASTS_S
    return claimed if proof and right and is_new else None


def asked_class(extra: Mapping[str, Any], contract: Contract) -> str | None:
    """The SLO class that a request asks for: `custom` with targets of its own, None if none."""
    if _own_targets(extra) != _NO_TARGETS:
        return CUSTOM
    name = extra.get("slo_class")
    return name if isinstance(name, str) and contract.slo_of(name) is not None else None


def slo_of(
    extra: Mapping[str, Any], settings: EngineSettings, tenant: str = ANONYMOUS
) -> tuple[str, SLO]:
    """SLO class and targets: as asked for, if the tenant may; else its default class.

    A holder of HMAS_TOKEN may ask for any, whatever tenant it calls itself.
    """
    contract = settings.contract
    asked = asked_class(extra, contract)
    if asked is None or not (
        contract.terms_of(tenant).allows(asked) or signed_tenant(extra, "own") == tenant
    ):
        asked = contract.default_class_of(tenant)
    elif (own := _own_targets(extra)) != _NO_TARGETS:
        return CUSTOM, own
    return asked, settings.slo_of(asked) or SLO()


def _own_targets(extra: Mapping[str, Any]) -> SLO:
    if extra.keys().isdisjoint(_TARGETS):
        return _NO_TARGETS
    return SLO(*(target_ms(extra.get(key)) for key in _TARGETS))


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
