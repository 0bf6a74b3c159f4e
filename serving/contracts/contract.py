"""What was promised to whom, and what may they ask for? The contract with the tenants.

Read from a file such as `contract.toml` by `settings.py`, held by every engine core, changed while
the engine runs (`hmas contract apply`). Each key's description is here and nowhere else.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from serving.contracts.codec import STRICT
from serving.contracts.requests import SLO

# After MLPerf inference (Llama chat and interactive scenarios), in milliseconds.
SLO_CLASSES: dict[str, SLO] = {
    "interactive": SLO(ttft_ms=500, tpot_ms=30),
    "conversational": SLO(ttft_ms=2_000, tpot_ms=100),
    "document": SLO(ttft_ms=15_000, tpot_ms=150),
    "batch": SLO(e2e_ms=600_000),
    "best_effort": SLO(),
}
CUSTOM = "custom"  # the class of a request that brings targets of its own
OTHER = "other"  # what tenants without a lane of their own are counted as
ANONYMOUS = "default"  # the tenant of a request that nobody vouches for
MAX_FLOORS = 0.9  # what is promised to some must leave room for all others
_NAME_LENGTH = 64

KeyHash = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Milliseconds = Annotated[float | None, Field(gt=0, allow_inf_nan=False)]


def tenant_name(claimed: object) -> str | None:
    """A claimed name without outer spaces, at most 64 characters; None if there is none.

    Nor is there one where it cannot be written as UTF-8 (a lone surrogate in JSON).
    """
    name = claimed.strip()[:_NAME_LENGTH].strip() if isinstance(claimed, str) else ""
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    return name or None


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TenantTerms(_Table):
    """`[tenants.NAME]`: what one tenant was promised, and what it may ask for."""

    weight: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="What a request of it counts for, times its class's weight. This one alone is "
        "its share (policy `fair`, buckets).",
    )
    floor: float = Field(
        0.0,
        ge=0,
        le=MAX_FLOORS,
        description="Least share of the engine's work (0..1) while the tenant has a backlog.",
    )
    classes: tuple[str, ...] = Field(
        (),
        description="SLO classes that it may ask for; `custom`: targets of its own. Empty: any.",
    )
    max_waiting: int | None = Field(
        None, ge=1, description="Most of its requests that may wait; more are answered 429."
    )
    tokens_per_minute: int | None = Field(
        None, ge=1, description="Most tokens, prompts and answers; more are answered 429."
    )
    api_key_hashes: tuple[KeyHash, ...] = Field(
        (), description="`sha256:` and the SHA-256 of each of its API keys, in hexadecimal."
    )

    def allows(self, slo_class: str) -> bool:
        """Whether the tenant may ask for this class."""
        return not self.classes or slo_class in self.classes


class ClassTerms(_Table):
    """`[classes.NAME]`: the latency targets of one SLO class, and what it counts for.

    Without any target a known class keeps its own, and a new one has none.
    """

    ttft_ms: Milliseconds = Field(None, description="First token, milliseconds.")
    tpot_ms: Milliseconds = Field(None, description="Mean of each further token, milliseconds.")
    e2e_ms: Milliseconds = Field(None, description="Whole answer, milliseconds.")
    itl_ms: Milliseconds = Field(
        None, description="Each single gap between tokens but 1% of them, milliseconds."
    )
    weight: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="What a request of it counts for, times its tenant's weight.",
    )
    sheddable: bool = Field(
        False, description="May be refused (HTTP 503) in overload, when a controller says so."
    )

    @property
    def slo(self) -> SLO:
        """Its targets as this table gives them."""
        return SLO(self.ttft_ms, self.tpot_ms, self.e2e_ms, self.itl_ms)


class Contract(_Table):
    """The whole file. `[tenants.default]` holds for every tenant without a table of its own."""

    believe_clients: bool = Field(
        False, description="Believe the `tenant` that clients claim in vllm_xargs."
    )
    require_keys: bool = Field(
        True,
        description="Once any tenant has an API key: answer 401 without one; false: as `default`.",
    )
    default_class: str = Field("batch", description="SLO class of requests that name none.")
    tenants: dict[str, TenantTerms] = Field(default_factory=dict, description="Terms per tenant.")
    classes: dict[str, ClassTerms] = Field(
        default_factory=dict, description="Further SLO classes, or other terms for known ones."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Contract":
        for at, problem in self._problems():
            key = ".".join(at)
            raise PydanticCustomError(
                "contract", "{key}: {problem}", {"key": key, "problem": problem, "at": at}
            )
        return self

    def _problems(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """What does not fit together: the way to the key, and what is wrong with it."""
        listed = ", ".join(self.class_names)
        yield from self._bad_names()
        if self.default_class not in self.class_names:
            yield (
                ("default_class",),
                f"unknown SLO class {self.default_class!r}; there are {listed}",
            )
        owners: dict[str, str] = {}
        for name, terms in self.tenants.items():
            at = ("tenants", name, "classes")
            for slo_class in terms.classes:
                if slo_class not in self.class_names and slo_class != CUSTOM:
                    yield at, f"unknown SLO class {slo_class!r}; there are {listed}, {CUSTOM}"
            if terms.classes and set(terms.classes) <= {CUSTOM}:
                yield at, "name one more class, for requests that bring no targets"
            for key in terms.api_key_hashes:
                if owners.setdefault(key, name) != name:
                    yield ("tenants", name, "api_key_hashes"), f"{owners[key]!r} has the same key"
        floors = sum(terms.floor for terms in self.tenants.values())
        if floors > MAX_FLOORS + 1e-9:
            yield ("tenants",), f"floors add up to {floors:g}, at most {MAX_FLOORS}"
        if owners and self.believe_clients:
            yield (
                ("believe_clients",),
                "lets any client claim a tenant that has API keys: leave one of the two out",
            )

    def _bad_names(self) -> Iterator[tuple[tuple[str, ...], str]]:
        for table in ("tenants", "classes"):
            for name in getattr(self, table):
                if tenant_name(name) != name or not name.isprintable():
                    yield (
                        (table, name),
                        f"a name is printable, of 1 to {_NAME_LENGTH} characters, without spaces "
                        "around it",
                    )
        if OTHER in self.tenants:
            yield (
                ("tenants", OTHER),
                f"{OTHER!r} stands for tenants that are not counted apart: take another name, or "
                f"{ANONYMOUS!r} for the terms of unlisted tenants",
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every SLO class that there is, the built-in ones first."""
        return tuple(dict.fromkeys((*SLO_CLASSES, *self.classes)))

    @property
    def sheddable(self) -> tuple[str, ...]:
        """The SLO classes that may be refused in overload."""
        return tuple(name for name, terms in self.classes.items() if terms.sheddable)

    @property
    def has_keys(self) -> bool:
        """Whether any tenant has an API key."""
        return any(terms.api_key_hashes for terms in self.tenants.values())

    @property
    def asks_of_requests(self) -> bool:
        """Whether someone has to look at each request: for keys, classes or quotas."""
        return any(
            terms.api_key_hashes or terms.classes or terms.max_waiting or terms.tokens_per_minute
            for terms in self.tenants.values()
        )

    def terms_of(self, tenant: str) -> TenantTerms:
        """The terms of a tenant; those of `default`, but for its floor and keys, if unlisted."""
        return self.tenants.get(tenant) or self.tenants.get(ANONYMOUS) or _UNLISTED

    def weight_of(self, tenant: str, slo_class: str) -> float:
        """What a request of this tenant and class counts for; 1 is the usual."""
        terms = self.classes.get(slo_class)
        return float(self.terms_of(tenant).weight * (1.0 if terms is None else terms.weight))

    def slo_of(self, slo_class: str) -> SLO | None:
        """Targets of a class; None when there is no such class."""
        terms = self.classes.get(slo_class)
        own = SLO() if terms is None else terms.slo
        if own != SLO():
            return own
        return SLO_CLASSES.get(slo_class, None if terms is None else own)

    def default_class_of(self, tenant: str) -> str:
        """The class of the tenant's requests that name none: the first allowed one, if need be."""
        terms = self.terms_of(tenant)
        if terms.allows(self.default_class):
            return self.default_class
        return next(name for name in terms.classes if name != CUSTOM)

    def with_keys_of(self, other: "Contract") -> "Contract":
        """The same with another's API keys, for the tenants that both have.

        Raises:
            ValidationError: it does not fit together with keys.
        """
        tenants = {
            name: terms.model_copy(update={"api_key_hashes": other.tenants[name].api_key_hashes})
            if name in other.tenants
            else terms
            for name, terms in self.tenants.items()
        }
        return Contract(**{**dict(self), "tenants": tenants})

    def without_keys(self) -> "Contract":
        """The same without the hashes of API keys, for eyes other than the server's."""
        tenants = {
            name: terms.model_copy(update={"api_key_hashes": ()})
            for name, terms in self.tenants.items()
        }
        return self.model_copy(update={"tenants": tenants})


_UNLISTED = TenantTerms()


@dataclass(frozen=True, slots=True)
class ContractInForce:
    """The contract that an engine holds. `epoch` 0 is the one it started with.

    Attributes:
        epoch: grows with each change.
        contract: without the hashes of API keys, unless one of the server's processes asks.
        slo_scale: what all targets are multiplied by, fixed at start-up.
        since_s: when it came into force, on the engine's clock; 0 at start-up.
        by: who applied it.
        keys: number of API keys per tenant.
    """

    epoch: int
    contract: Contract
    slo_scale: float = 1.0
    since_s: float = 0.0
    by: str = ""
    keys: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContractChange:
    """A contract to put in force. `check_only`: only say what would change.

    `epoch` is above that of the contract it was made from, so that of two changes made from
    one contract the second is refused. `keep_keys`: tenants keep the API keys that they have, for
    who made it of a contract as the engine shows it, without their hashes.
    """

    __pydantic_config__ = STRICT
    contract: Contract
    epoch: int
    by: str = ""
    check_only: bool = False
    keep_keys: bool = False


@dataclass(frozen=True, slots=True)
class ContractAck:
    """The engine's answer to a `ContractChange`, with what it changes, a line for each key."""

    accepted: bool
    epoch: int
    epoch_before: int
    reason: str = ""
    changes: tuple[str, ...] = ()


def with_classes(slos: Mapping[str, SLO], sheddable: Collection[str] = ()) -> Contract:
    """A contract of these SLO classes, as requests of theirs have shown them."""
    classes = {
        name: ClassTerms(
            **{"sheddable": name in sheddable, **dataclasses.asdict(slos.get(name, SLO()))}
        )
        for name in (*slos, *sheddable)
    }
    return Contract(classes=classes)


def contract_changes(old: Contract, new: Contract) -> tuple[str, ...]:
    """What differs, a line for each key: `tenants.acme.weight: 1 -> 4`. Shows no key's hash."""
    lines = _differences("", old, new)
    for table, empty in (("tenants", TenantTerms()), ("classes", ClassTerms())):
        before: Mapping[str, Any] = getattr(old, table)
        after: Mapping[str, Any] = getattr(new, table)
        for name in sorted({*before, *after}):
            path = f"{table}.{name}"
            if name not in before:
                lines.append(f"{path}: new")
            if name not in after:
                lines.append(f"{path}: gone")
            lines += _differences(f"{path}.", before.get(name, empty), after.get(name, empty))
    return tuple(lines)


def _differences(prefix: str, old: BaseModel, new: BaseModel) -> list[str]:
    lines = []
    for key in type(old).model_fields:
        before, after = getattr(old, key), getattr(new, key)
        if before == after or isinstance(before, dict):
            continue
        if key == "api_key_hashes":
            added, removed = len(set(after) - set(before)), len(set(before) - set(after))
            lines.append(f"{prefix}{key}: {added} added, {removed} removed")
        else:
            lines.append(f"{prefix}{key}: {_shown(before)} -> {_shown(after)}")
    return lines


def _shown(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return "[" + ", ".join(map(str, value)) + "]"
    return str(value)
