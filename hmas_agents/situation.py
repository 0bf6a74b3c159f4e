"""What does the long horizon decide from, and what does the twin start from?

Collected by `hmas_agents.engine_watch`, replayed by `hmas_agents.twin`, stored with each
long decision in the ledger, so that it can be asked again with another prompt, model or rule.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hmas_agents.states import LongState
from serving.contracts import Limits, ResidentPage, Snapshot, TraceRequest
from serving.contracts.settings import EngineSettings


class SituationError(ValueError):
    """A stored situation that cannot be read; names the key and the value."""


@dataclass(frozen=True, slots=True)
class Served:
    """An answer that has ended: what answer lengths are drawn and learnt from."""

    tenant: str
    prompt_tokens: int
    max_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Expected:
    """A change of traffic that was announced.

    Attributes:
        factor: what is offered is so many times as much as it was lately.
        from_s, until_s: on the engine's clock; None is open-ended.
        tenant, slo_class: whose; None is everybody's.
    """

    factor: float
    from_s: float
    until_s: float | None = None
    tenant: str | None = None
    slo_class: str | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """One engine at one moment. With N data-parallel ranks: one rank's share of it.

    Attributes:
        snapshot: the engine between two steps.
        state: the last minutes.
        requests: arrivals of the last window, oldest first, the first at 0 s.
        span_s: from that first arrival to the snapshot.
        settings: the engine's own as far as it shows them, the contract in force with them.
            Targets of requests are their own, already scaled: of one class, `custom` above all,
            they may differ.
        inside: the requests that the engine holds, on the snapshot's clock.
        served: recent answers that ended, oldest first.
        own_tenants: of the controller's own requests: served in a forecast, and not counted.
        expected: announced changes of traffic.
    """

    snapshot: Snapshot
    state: LongState
    requests: tuple[TraceRequest, ...]
    span_s: float
    settings: EngineSettings
    inside: ResidentPage
    served: tuple[Served, ...] = ()
    own_tenants: tuple[str, ...] = ()
    expected: tuple[Expected, ...] = ()

    @property
    def limits(self) -> Limits:
        """In force now, under every candidate alike."""
        return self.snapshot.limits


_ADAPTER = TypeAdapter(Situation)
# Settings of situations stored before there was a contract; the rest of them were at defaults.
# The published cases (evals/cases/scenes.jsonl.gz, small.jsonl.gz) are such: their labels and the
# recorded replies to their prompts hold for them as they are stored.
_BEFORE_CONTRACTS = (
    "slo_classes", "sheddable", "default_slo_class", "trust_client_tenant", "tenant_weights",
    "tenant_floors",
)  # fmt: skip


def _as_now(data: Any) -> Any:
    """An older situation in the present form: its SLO classes are in the contract."""
    old = data.get("settings") if isinstance(data, dict) else None
    if not (isinstance(old, dict) and "slo_classes" in old):
        return data
    sheddable = old.get("sheddable") or ()
    classes = {
        name: {**slo, "sheddable": name in sheddable} if isinstance(slo, dict) else slo
        for name, slo in {**{key: {} for key in sheddable}, **old["slo_classes"]}.items()
    }
    kept = {key: value for key, value in old.items() if key not in _BEFORE_CONTRACTS}
    return {**data, "settings": {**kept, "contract": {"classes": classes}}}


def encode_situation(situation: Situation) -> dict[str, Any]:
    """JSON-ready."""
    encoded: dict[str, Any] = _ADAPTER.dump_python(situation, mode="json", warnings=False)
    return encoded


def decode_situation(data: object) -> Situation:
    """The situation of an encoded one.

    Raises:
        SituationError: names the first offending key, its value and what was expected.
    """
    try:
        return _ADAPTER.validate_python(_as_now(data))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "situation"
        raise SituationError(f"{key}: {first['msg']} (got {str(first['input'])[:80]!r})") from error
