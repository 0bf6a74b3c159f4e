"""What does the hook need to know at start-up?

Read once inside vLLM from `--additional-config '{"hmas": {...}}'`, which the
launcher writes; the simulator builds it directly.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.contracts import SLO, ContractError

# After MLPerf inference (Llama chat and interactive scenarios), in milliseconds.
SLO_CLASSES: dict[str, SLO] = {
    "interactive": SLO(ttft_ms=500, tpot_ms=30),
    "conversational": SLO(ttft_ms=2_000, tpot_ms=100),
    "document": SLO(ttft_ms=15_000, tpot_ms=150),
    "batch": SLO(e2e_ms=600_000),
    "best_effort": SLO(),
}


class EngineSettings(BaseModel):
    """Start-up settings of the hooked scheduler."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default_policy: str = Field("fcfs", description="Policy without a controller's lease.")
    slo_scale: float = Field(1.0, gt=0, description="Multiplies every class's targets.")
    slo_classes: dict[str, SLO] = Field(
        default_factory=dict, description="Further SLO classes, or other targets for known ones."
    )
    default_slo_class: str = Field("batch", description="Class of requests that name none.")
    max_wait_s: float = Field(
        900.0, gt=0, description="A request that waits longer outranks every policy."
    )
    trust_client_tenant: bool = Field(
        True, description="Believe `tenant` in vllm_xargs; otherwise the LoRA name or `default`."
    )
    tenant_weights: dict[str, float] = Field(
        default_factory=dict, description="Relative weight of a tenant; 1 where none is given."
    )
    max_tenants: int = Field(64, ge=1, description="Tenants counted apart; the rest are `other`.")
    journal_size: int = Field(20_000, ge=100, description="Arrivals and outcomes kept for readers.")

    def slo_of(self, slo_class: str) -> SLO | None:
        """Targets of a class, scaled; None when the class is unknown."""
        slo = self.slo_classes.get(slo_class) or SLO_CLASSES.get(slo_class)
        return None if slo is None else slo.scaled(self.slo_scale)


def read_settings(additional_config: object) -> EngineSettings:
    """Settings from vLLM's additional_config (missing means defaults).

    Raises:
        ContractError: names the key and the value that do not fit.
    """
    raw: Any = additional_config.get("hmas", {}) if isinstance(additional_config, dict) else {}
    try:
        return EngineSettings.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ContractError(
            f"--additional-config hmas.{key}: {first['msg']} (got {first['input']!r})"
        ) from error
