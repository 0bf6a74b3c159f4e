"""What does the hook need to know at start-up?

Read once inside vLLM from `--additional-config '{"hmas": {...}}'`, which the
launcher writes; the simulator builds it directly. The contract in it may change later.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.contracts import (
    SLO,
    Contract,
    ContractAck,
    ContractChange,
    ContractError,
    ContractInForce,
    contract_changes,
)
from serving.contracts.toml_file import read_toml

_MAX_EPOCH = 2**53  # larger integers do not survive JSON and msgpack everywhere


class EngineSettings(BaseModel):
    """Start-up settings of the hooked scheduler."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default_policy: str = Field("fcfs", description="Policy without a controller's lease.")
    slo_scale: float = Field(1.0, gt=0, description="Multiplies every class's targets.")
    max_wait_s: float = Field(
        900.0, gt=0, description="A request that waits longer outranks every policy."
    )
    gateway: Literal["off", "token", "always"] = Field(
        "off",
        description="Headers of a gateway that name tenant and SLO are ignored, believed with "
        "HMAS_GATEWAY_TOKEN, or always believed (only where nobody else can reach the server).",
    )
    gateway_objectives: dict[str, str] = Field(
        default_factory=dict, description="SLO class of an llm-d objective; else its own name is."
    )
    bucket_s: float = Field(
        10.0, gt=0, description="Seconds of its share that a tenant may run ahead (tenant_buckets)."
    )
    retry_after_s: int = Field(10, ge=1, description="Retry-After of a request that is refused.")
    max_tenants: int = Field(64, ge=1, description="Tenants counted apart; the rest are `other`.")
    journal_size: int = Field(20_000, ge=100, description="Arrivals and outcomes kept for readers.")
    model_file: str | None = Field(
        None, description="Keeps the learned cost and length models across restarts; unset: none."
    )
    contract: Contract = Field(
        Contract(), description="Tenants and SLO classes at start-up; changed by `hmas contract`."
    )

    @model_validator(mode="after")
    def _objectives_lead_to_classes(self) -> "EngineSettings":
        known = self.contract.class_names
        for objective, slo_class in self.gateway_objectives.items():
            if slo_class not in known:
                raise ValueError(
                    f"gateway_objectives: {objective!r} leads to the unknown SLO class "
                    f"{slo_class!r}; there are {', '.join(known)}"
                )
        return self

    def under(self, contract: Contract) -> "EngineSettings":
        """The same settings with another contract.

        Raises:
            ValueError: an objective of the gateway leads to a class that it does not have.
        """
        return EngineSettings(**{**dict(self), "contract": contract})

    def slo_of(self, slo_class: str) -> SLO | None:
        """Targets of a class, scaled; None when the class is unknown."""
        slo = self.contract.slo_of(slo_class)
        return None if slo is None else slo.scaled(self.slo_scale)


def load_contract(path: Path) -> Contract:
    """The contract in a TOML file.

    Raises:
        ContractError: `FILE:LINE: key: what is wrong`, a line for each problem.
    """
    return read_toml(path, Contract, ContractError)


def judge_change(
    held: ContractInForce, change: ContractChange, settings: EngineSettings
) -> tuple[ContractAck, EngineSettings]:
    """Whether an engine that holds a contract takes this change, and its settings then."""
    wanted = change.contract

    def answer(accepted: bool, epoch: int, reason: str) -> ContractAck:
        changes = contract_changes(held.contract, wanted)
        return ContractAck(accepted, epoch, held.epoch, reason, changes)

    if not held.epoch < change.epoch <= _MAX_EPOCH:
        reason = (
            f"epoch {change.epoch} is not above the present {held.epoch}: the contract was changed "
            "meanwhile, look at it and apply again"
        )
        return answer(False, held.epoch, reason), settings
    try:
        if change.keep_keys:
            wanted = wanted.with_keys_of(held.contract)
        settings = settings.under(wanted)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        return answer(False, held.epoch, reason), settings
    if change.check_only:
        return answer(True, held.epoch, "would be accepted"), settings
    return answer(True, change.epoch, f"contract {held.epoch} -> {change.epoch}"), settings


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
        key = ".".join(str(part) for part in ("hmas", *first["loc"]))
        given = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
        raise ContractError(f"--additional-config {key}: {first['msg']}{given}") from error
