"""What may be configured, with which defaults?

One TOML file for the controller. Every key has its default and its description
here and nowhere else: `hmas config` prints them, and `hmas.toml` at the root of
the repository is that print. Read by the graphs, the CLI and the evals.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from serving.contracts.near_names import choices
from serving.contracts.rules import RULES
from serving.fleet.addresses import address_text
from serving.policies import POLICIES, parse_policy

CONFIG_FILE = Path("hmas.toml")

# Of a request to the model: what its own keys, the prompt and the reply's reader decide.
_OURS = {"model", "messages", "response_format", "max_tokens", "temperature", "stream", "n"}


class ConfigError(ValueError):
    """A configuration that cannot be used; names file, line and key."""


class Section(BaseModel):
    """A table of the file. Unknown keys are errors, values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EngineConfig(Section):
    """The running engine, or the fleet of them."""

    url: Annotated[str, BeforeValidator(address_text)] = Field(
        "http://127.0.0.1:8000",
        description="Where vLLM with the hook answers. A fleet: URLs with commas or as a list, "
        "dns://NAME:PORT, k8s://NAMESPACE/LABEL=VALUE:PORT or ray://APP.",
    )
    token_file: Path = Field(
        Path("var/hmas.token"), description="File with the token of the control routes."
    )


class ControlConfig(Section):
    """How and how often the controller acts."""

    mode: Literal["advise", "act"] = Field(
        "advise", description="advise: decide and record, write nothing. act: apply decisions."
    )
    short_tick_s: float = Field(2.0, gt=0, description="Period of the rule agents.")
    long_tick_s: float = Field(60.0, gt=0, description="Period of the policy choice.")
    first_tick_s: float = Field(
        10.0, ge=0, description="The first choice comes so soon, if requests came by then."
    )
    alarm_gap_s: float = Field(
        10.0, ge=0, description="A drift alarm brings a choice forward, this long after the last."
    )
    use_rule_table: bool = Field(True, description="Let the rule table propose a policy.")
    ttl_s: float = Field(
        15.0, gt=0, description="Lease of a decision: silent that long, the engine goes default."
    )
    start_policy: str = Field(
        "edf:kappa=3", description="Policy, with parameters, put in force at the first tick."
    )
    start_rules: tuple[str, ...] = Field(
        ("slack", "serial", "triage"),
        description="Rules of the engine switched on at the first tick.",
    )
    allow_policies: tuple[str, ...] = Field(
        ("edf", "srpt"),
        min_length=1,
        description="Policies that may be chosen.",
    )
    reload_tools: bool = Field(
        True,
        description="Take edits of tool files while running; false: at the next start. Only files "
        "that you or root own, and that nobody else may write.",
    )
    min_dwell_s: float = Field(30.0, ge=0, description="Shortest stay with a policy.")
    max_switches_per_hour: int = Field(20, ge=0, description="Most policy switches in an hour.")

    @property
    def start_setting(self) -> str:
        """Policy and rules of the first tick, as evals name a setting."""
        return "+".join((self.start_policy, *self.start_rules))

    @model_validator(mode="after")
    def _consistent(self) -> "ControlConfig":
        if unknown := sorted(set(self.allow_policies) - set(POLICIES)):
            known = choices(unknown[0], POLICIES)
            raise ValueError(f"allow_policies: {unknown[0]!r} does not exist; {known}")
        start, _ = parse_policy(self.start_policy)
        if start not in self.allow_policies:
            raise ValueError(f"start_policy {start!r} is not in allow_policies")
        if strange := sorted(set(self.start_rules) - set(RULES)):
            known = choices(strange[0], RULES)
            raise ValueError(f"start_rules: {strange[0]!r} does not exist; {known}")
        if self.ttl_s <= self.short_tick_s:
            raise ValueError(
                f"ttl_s {self.ttl_s:g} must exceed short_tick_s {self.short_tick_s:g}, "
                "or the lease runs out between two renewals"
            )
        return self


class ModelConfig(Section):
    """The language model behind the policy agent."""

    enabled: bool = Field(True, description="Ask the model; false leaves the choice to rules.")
    base_url: str = Field("http://127.0.0.1:8000/v1", description="Any OpenAI-compatible endpoint.")
    name: str = Field("", description="Model to ask; empty means the first one listed.")
    api_key_env: str = Field(
        "HMAS_MODEL_API_KEY", description="Environment variable that holds the API key."
    )
    timeout_s: float = Field(20.0, gt=0, description="Longest wait for one reply.")
    max_tokens: int = Field(200, ge=1, description="Longest reply in tokens.")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature.")
    tenant: str = Field("hmas", description="Tenant that the agent's own requests are charged to.")
    extra_body: dict[str, JsonValue] = Field(
        {}, description="Sent as it is with every request: what the endpoint knows beyond OpenAI's."
    )
    max_latency_s: float = Field(
        40.0, gt=0, description="Longest asking of one decision, the second attempt included."
    )
    max_tokens_per_hour: int = Field(
        300_000, ge=0, description="Decisions beyond it are made without the model; 0: no limit."
    )
    max_step_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Most of the controlled engine's step time (10 minutes); 0: no limit.",
    )
    on_engine: bool | Literal["auto"] = Field(
        "auto", description="Does the model run on the controlled engine? auto: same host and port."
    )

    @field_validator("extra_body")
    @classmethod
    def _nothing_of_ours(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(_OURS & set(extra)):
            raise ValueError(f"{taken[0]!r} is set by H-MAS; leave it out")
        return extra


class TwinConfig(Section):
    """The simulator that checks proposals before they go live."""

    enabled: bool = Field(True, description="Try proposals in the simulator before they go live.")
    candidates: int = Field(
        256, ge=0, le=2000,
        description="Policies, rules and bounds to try beside what was proposed; 0: none.",
    )  # fmt: skip
    horizon_s: float = Field(60.0, gt=0, le=600, description="How far ahead it looks.")
    draws: int = Field(
        32, ge=4, le=256, description="Futures; all see the first one, the best see every one."
    )
    window_s: float = Field(120.0, gt=0, description="Past that futures are drawn from.")
    max_requests: int = Field(
        400, ge=50, description="Most arrivals in a look ahead; more of them shorten it."
    )
    budget_s: float = Field(20.0, gt=0, description="Wall-clock limit of a decision (live only).")


# The rule agents, as `hmas_agents.agents.arbiter` knows them.
Concern = Literal["tenant_shares", "admission", "batching", "prefill"]


class RuleModelConfig(Section):
    """A model in place of one rule agent: an example of how a rule is swapped for one."""

    replaces: Literal["", "tenant_shares", "admission", "batching", "prefill"] = Field(
        "", description="The rule agent whose work it does; empty: none."
    )
    base_url: str = Field("http://127.0.0.1:8000/v1", description="Any OpenAI-compatible endpoint.")
    name: str = Field("", description="Model to ask; empty means the first one listed.")
    api_key_env: str = Field(
        "HMAS_MODEL_API_KEY", description="Environment variable that holds the API key."
    )
    timeout_s: float = Field(5.0, gt=0, description="Longest wait for one reply; no tick waits.")
    fresh_s: float = Field(
        10.0, gt=0, description="An answer stands so long; then the rule agent speaks again."
    )
    tenant: str = Field("hmas", description="Tenant that its requests are charged to.")


class AgentsConfig(Section):
    """The rule agents of the short horizon."""

    enabled: tuple[Concern, ...] = Field(
        ("tenant_shares", "admission", "batching", "prefill"),
        description="Those that act; their order of precedence is fixed, this one.",
    )
    min_gap_s: float = Field(4.0, ge=0, description="Shortest time between two calls of one tool.")
    max_calls_per_minute: int = Field(20, ge=1, description="Most calls of all tools in a minute.")
    model: RuleModelConfig = Field(RuleModelConfig(), description="A model in place of one.")

    @model_validator(mode="after")
    def _replaces_one_that_acts(self) -> "AgentsConfig":
        if self.model.replaces and self.model.replaces not in self.enabled:
            raise ValueError(
                f"model.replaces {self.model.replaces!r} is not in enabled: "
                "a model cannot do the work of a rule agent that is switched off"
            )
        return self


class FeedbackConfig(Section):
    """How runtime metrics become QoS states."""

    short_window_s: float = Field(10.0, gt=0, description="Window of the short state.")
    long_window_s: float = Field(120.0, gt=0, description="Window of the long state.")
    ewma_half_life_s: float = Field(
        30.0, gt=0, description="Half-life of attainment per tenant and class."
    )
    cusum_threshold: float = Field(
        5.0, gt=0, description="Rate alarm: cumulated deviation, in standard deviations."
    )
    cusum_drift: float = Field(
        0.5, ge=0, description="Rate alarm: deviation per window that is not counted."
    )
    psi_alarm: float = Field(
        0.25, gt=0, description="Drift alarm: population stability index of lengths or mix."
    )


class PromptsConfig(Section):
    """Which prompt the policy agent uses."""

    name: str = Field("policy", description="Folder under prompts/.")
    label: str = Field("current", description="Label in prompts/labels.toml, or a version number.")


class LedgerConfig(Section):
    """Where decisions are kept."""

    path: Path = Field(Path("var/ledger.sqlite"), description="SQLite file.")
    max_decisions: int = Field(50_000, ge=1, description="Decisions kept; the oldest go first.")
    max_outcomes: int = Field(500_000, ge=1, description="Outcomes kept; the oldest go first.")


class MetricsConfig(Section):
    """The controller's own metrics."""

    port: int = Field(0, ge=0, le=65_535, description="Prometheus port of the controller; 0: off.")
    host: str = Field(
        "127.0.0.1", min_length=1,
        description="Address to listen at: this machine alone; 0.0.0.0: every one, as in a pod.",
    )  # fmt: skip


class TelemetryConfig(Section):
    """Spans of ticks and decisions, sent by OpenTelemetry."""

    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Collector for OTLP over HTTP, http://HOST:4318. Empty: "
        "OTEL_EXPORTER_OTLP_ENDPOINT, if that is set; else nothing is traced.",
    )
    prompt_content: bool = Field(
        False, description="Write prompts and replies of the policy agent into spans."
    )


class Config(Section):
    """The controller's whole configuration."""

    engine: EngineConfig = Field(EngineConfig(), description="The running engine.")
    control: ControlConfig = Field(ControlConfig(), description="The control loop.")
    model: ModelConfig = Field(ModelConfig(), description="The policy agent's model.")
    twin: TwinConfig = Field(TwinConfig(), description="The check of proposals by simulation.")
    agents: AgentsConfig = Field(AgentsConfig(), description="The rule agents, short horizon.")
    feedback: FeedbackConfig = Field(FeedbackConfig(), description="Windows and drift alarms.")
    prompts: PromptsConfig = Field(PromptsConfig(), description="The policy agent's prompt.")
    ledger: LedgerConfig = Field(LedgerConfig(), description="The decision ledger.")
    metrics: MetricsConfig = Field(MetricsConfig(), description="The controller's metrics.")
    telemetry: TelemetryConfig = Field(TelemetryConfig(), description="Spans of the controller.")

    @property
    def own_tenants(self) -> tuple[str, ...]:
        """Tenants that the controller's own requests are charged to: nobody's attainment."""
        asking = {
            self.model.tenant if self.model.enabled else "",
            self.agents.model.tenant if self.agents.model.replaces else "",
        }
        return tuple(sorted(asking - {""}))


def load_config(path: Path | None, overrides: dict[str, Any] | None = None) -> Config:
    """The configuration of a file, with overrides on top.

    Args:
        path: a TOML file; None means the defaults, whatever lies in the working directory.
        overrides: dotted keys, `{"control.mode": "act"}`; entries that are None are skipped.

    Raises:
        ConfigError: `FILE:LINE: KEY: what is wrong`, for every wrong key.
    """
    text = "" if path is None else _read(path)
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        place = f"{path}:{line[1]}" if line else f"{path}:{text.count(chr(10)) + 1}"
        raise ConfigError(f"{place}: not TOML: {error}") from error
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    for key, value in given.items():
        *sections, name = key.split(".")
        table: Any = values
        for section in sections:
            table = table.setdefault(section, {}) if isinstance(table, dict) else None
        if not sections or not isinstance(table, dict):
            raise ConfigError(f"override {key}: not of the form section.key")
        table[name] = value
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [_explain(item, path, text, given) for item in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def default_config_path() -> Path | None:
    """`hmas.toml` in the working directory if there is one: what commands read by default."""
    return CONFIG_FILE if CONFIG_FILE.is_file() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path}: cannot be read: {reason}") from error


def _explain(error: Any, path: Path | None, text: str, given: dict[str, Any]) -> str:
    """One line for one pydantic error: where, which key, what, and the value."""
    key, table = _key_of([str(part) for part in error["loc"]])
    if error["type"] == "extra_forbidden":
        known = choices(key.rpartition(".")[2], table.model_fields)
        return f"{_place(key, path, text, given)}{key}: unknown key; {known}"
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(error["input"], dict) else f" (got {error['input']!r})"
    return f"{_place(key, path, text, given)}{key}: {message}{shown}"


def _key_of(location: list[str]) -> tuple[str, type[BaseModel]]:
    """The dotted key of an error's location, and the table that it is in."""
    table: type[BaseModel] = Config
    for depth, part in enumerate(location, start=1):
        item = table.model_fields.get(part)
        inner = item.annotation if item is not None else None
        if not (isinstance(inner, type) and issubclass(inner, Section)):
            return ".".join(location[:depth]), table
        if depth < len(location):
            table = inner
    return ".".join(location), table


def _place(key: str, path: Path | None, text: str, given: dict[str, Any]) -> str:
    if path is None or key in given:
        return "override "
    return f"{path}:{_line_of(key, text)}: "


def _line_of(key: str, text: str) -> int:
    """The line that sets a dotted key, else the one that opens its table, else 1."""
    section = key.partition(".")[0]
    table, opened, around = "", 1, ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\s*([\w.\"'-]+)\s*\]", line)
        if header:
            table = header[1].strip("\"'")
            if f"{key}.".startswith(f"{table}.") and len(table) >= len(around):
                opened, around = number, table
            continue
        assigned = re.match(r"\s*([\w.\"'-]+)\s*=", line)
        if assigned is None:
            continue
        dotted = f"{table}.{assigned[1]}".lstrip(".").replace('"', "").replace("'", "")
        if dotted == key or (dotted == section and not table):
            return number
    return opened
