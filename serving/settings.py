"""What does the hook need to know at start-up?

Read once inside vLLM from `--additional-config '{"hmas": {...}}'`, which the
launcher writes; the simulator builds it directly.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from serving.contracts import SLO, ContractError

# After MLPerf inference (Llama chat and interactive scenarios), in milliseconds.
SLO_CLASSES: dict[str, SLO] = {
    "interactive": SLO(ttft_ms=500, tpot_ms=30),
    "conversational": SLO(ttft_ms=2_000, tpot_ms=100),
    "document": SLO(ttft_ms=15_000, tpot_ms=150),
    "batch": SLO(e2e_ms=600_000),
    "best_effort": SLO(),
}


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MAX_FLOORS = 0.9  # what is promised to some must leave room for all others


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
    trust_client_tenant: bool | None = Field(
        None, description="Believe clients' `tenant` in vllm_xargs; unset: if there is no gateway."
    )
    gateway: Literal["off", "token", "always"] = Field(
        "off",
        description="Headers of a gateway that name tenant and SLO are ignored, believed with "
        "HMAS_GATEWAY_TOKEN, or always believed (only where nobody else can reach the server).",
    )
    gateway_objectives: dict[str, str] = Field(
        default_factory=dict, description="SLO class of an llm-d objective; else its own name is."
    )
    tenant_weights: dict[str, Positive] = Field(
        default_factory=dict, description="Relative weight of a tenant; 1 where none is given."
    )
    tenant_floors: dict[str, Positive] = Field(
        default_factory=dict,
        description="Least share of the engine's work (0..1) that a tenant with a backlog gets.",
    )
    bucket_s: float = Field(
        10.0, gt=0, description="Seconds of its share that a tenant may run ahead (tenant_buckets)."
    )
    sheddable: tuple[str, ...] = Field(
        (), description="SLO classes that may be refused (HTTP 503) while a controller says so."
    )
    retry_after_s: int = Field(10, ge=1, description="Retry-After of a refused request.")
    max_tenants: int = Field(64, ge=1, description="Tenants counted apart; the rest are `other`.")
    journal_size: int = Field(20_000, ge=100, description="Arrivals and outcomes kept for readers.")
    model_file: str | None = Field(
        None, description="Keeps the learned cost and length models across restarts; unset: none."
    )

    @field_validator("gateway_objectives")
    @classmethod
    def _lead_to_known_classes(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        known = {*SLO_CLASSES, *info.data.get("slo_classes", {})}
        for objective, slo_class in value.items():
            if slo_class not in known:
                raise ValueError(
                    f"{objective!r} leads to the unknown SLO class {slo_class!r}; "
                    f"there are {', '.join(sorted(known))}"
                )
        return value

    @field_validator("sheddable")
    @classmethod
    def _are_known_classes(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known = {*SLO_CLASSES, *info.data.get("slo_classes", {})}
        for slo_class in value:
            if slo_class not in known:
                raise ValueError(
                    f"unknown SLO class {slo_class!r}; there are {', '.join(sorted(known))}"
                )
        return value

    @property
    def believes_clients(self) -> bool:
        """Whether a tenant that the client itself claims is believed."""
        trusted = self.trust_client_tenant
        return self.gateway == "off" if trusted is None else trusted

    @field_validator("tenant_floors")
    @classmethod
    def _floors_leave_room(cls, floors: dict[str, float]) -> dict[str, float]:
        if sum(floors.values()) > MAX_FLOORS:
            raise ValueError(f"floors add up to {sum(floors.values()):g}, at most {MAX_FLOORS}")
        return floors

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
