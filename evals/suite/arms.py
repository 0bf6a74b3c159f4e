"""Which contenders are there? An arm is a name and how the engine is steered.

`fixed-NAME` is our scheduler with one policy and stock limits for the whole run;
`fixed-NAME:param=value` sets the policy's parameters; `fixed-NAME+slack+pace` adds some
short-horizon rules, `fixed-NAME+rules` all of them, and `+active=80` bounds the requests that run
at once. The others are in `ARMS`; `hmas:start=NAME` is `hmas` from another policy on than the
configuration says. The simulated and the live runner give an arm its meaning; suites name arms,
results carry the names.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evals.suite.contenders import ARMS, Contender, Kind
from serving.contracts import Decision, Limits
from serving.contracts.rules import RULES, parse_rules, with_rules
from serving.policies import POLICIES, parse_policy

if TYPE_CHECKING:
    from hmas_agents.config import Config

FIXED_CONTROLLER = "fixed"
ALL_RULES = "rules"
ACTIVE = "active="


@dataclass(frozen=True, slots=True)
class Arm:
    """One contender; `policy`, `rules` and `params` are set for fixed ones only."""

    name: str
    kind: Kind
    policy: str = ""  # empty for fixed ones, too, whose policy the configuration or tuning says
    rules: tuple[str, ...] = ()
    # Of the policy, those that the name sets; the others have their defaults.
    params: tuple[tuple[str, float], ...] = ()
    active: int = 0  # most requests at once; 0: as many as the engine was started with
    start: str = ""  # of a loop, where its name says it: `control.start_policy`
    live: bool = False  # whether it can be run on a server

    @property
    def id_text(self) -> str:
        """The name as ids and file names may have it."""
        return re.sub("[:=,]", "-", self.name)

    @property
    def contender(self) -> Contender | None:
        """What `ARMS` says of it; None of `fixed-NAME`."""
        return ARMS.get(self.name.partition(":")[0])

    @property
    def configured(self) -> bool:
        """Whether it goes by the controller's configuration."""
        return self.contender is not None and self.contender.configured

    @property
    def tuned(self) -> bool:
        """Whether it reads what `hmas eval tune` found."""
        return self.contender is not None and self.contender.tuned


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """What the arm `hmas` needs beside its defaults."""

    config_path: Path | None = None  # a controller configuration file; None means the defaults
    # Endpoint of the policy agent's model; None leaves the choice to rules, or to the replies in
    # the cassette.
    model_url: str | None = None
    model_name: str = ""  # model to ask there; empty means the first one listed
    ledger_path: Path | None = None  # where decisions are recorded; None means nowhere
    # File of the model's replies (simulated runs): with `model_url` it is added to, without it is
    # all that there is.
    cassette: Path | None = None

    @property
    def asks_model(self) -> bool:
        """Whether a model, running or recorded, proposes policies."""
        return self.model_url is not None or self.cassette is not None


def parse_arm(name: str) -> Arm:
    """The arm of a name.

    Raises:
        ValueError: there is none, or a rule or a parameter is unknown, named twice or out of
            bounds; says what there is.
    """
    if name in ARMS:
        known = ARMS[name]
        if known.same_as:
            return replace(parse_arm(known.same_as), name=name)
        return Arm(name, known.kind, live=known.live)
    loop, has_start, start = name.partition(":start=")
    if has_start and loop in {"hmas", "hmas-advise"}:
        _policy(name, start)
        return replace(parse_arm(loop), name=name, start=start)
    head, *rules = name.split("+")
    active = _active(name, [rule for rule in rules if rule.startswith(ACTIVE)])
    rules = [rule for rule in rules if not rule.startswith(ACTIVE)]
    policy = head.removeprefix("fixed-")
    if policy != head and policy.partition(":")[0] in POLICIES:
        policy, params = _policy(name, policy)
        return Arm(
            name, "fixed", policy, _rules(name, rules), tuple(params.items()), active, live=True
        )
    listed = [*ARMS, *(f"fixed-{policy}" for policy in POLICIES)]
    raise ValueError(
        f"unknown arm {name!r}; known: {', '.join(listed)}; a fixed one may go on with "
        f"parameters such as :kappa=40, and end in +{ALL_RULES} or in rules such as "
        f"+{'+'.join(list(RULES)[:2])}, and in +{ACTIVE}80; "
        "hmas may go on with :start= and a policy"
    )


def is_arm(name: str) -> bool:
    """Whether an arm has this name; servers that a live run was given by URL have their own."""
    try:
        parse_arm(name)
    except ValueError:
        return False
    return True


def expand_arms(names: Iterable[str]) -> tuple[str, ...]:
    """Arms by name, `*` written out: each policy in `fixed-*`, each rule alone in `...+*`."""
    expanded: list[str] = []
    for name in names:
        head, plus, rules = name.partition("+")
        heads = [f"fixed-{policy}" for policy in POLICIES] if head == "fixed-*" else [head]
        tails = list(RULES) if rules == "*" else [rules]
        expanded += [head + plus + tail for head in heads for tail in tails]
    return tuple(expanded)


def listed_arms(text: str) -> tuple[str, ...]:
    """The arms in a list with commas; a comma between two parameters of an arm ends no name."""
    return tuple(name.strip() for name in re.split(r",(?!\w+=)", text))


def _policy(arm: str, text: str) -> tuple[str, dict[str, float]]:
    try:
        return parse_policy(text)
    except ValueError as error:
        raise ValueError(f"arm {arm!r}: {error}") from error


def _active(name: str, parts: list[str]) -> int:
    if not parts:
        return 0
    count = parts[0].removeprefix(ACTIVE)
    if len(parts) > 1 or not count.isdecimal() or int(count) < 1:
        raise ValueError(f"arm {name!r}: {'+'.join(parts)}: one number of requests from 1 on")
    return int(count)


def _rules(name: str, rules: list[str]) -> tuple[str, ...]:
    if rules == [ALL_RULES]:
        return tuple(RULES)
    try:
        return tuple(parse_rules("".join(f"+{rule}" for rule in rules)))
    except ValueError as error:
        raise ValueError(f"arm {name!r}: {error}; +{ALL_RULES} alone is all of them") from error


def fixed_decision(arm: Arm, limits: Limits, epoch: int, ttl_s: float) -> Decision:
    """The one decision of a `fixed-NAME` arm: stock `limits` but for what the arm's name says."""
    if arm.active:
        limits = replace(limits, max_active_requests=arm.active)
    return Decision(
        controller_id=FIXED_CONTROLLER,
        epoch=epoch,
        ttl_s=ttl_s,
        policy=arm.policy,
        params=dict(arm.params),
        limits=with_rules(limits, arm.rules),
        reason="fixed for the whole run",
    )


def limits_not_taken(asked: Limits, taken: Limits) -> str:
    """What an engine made otherwise than a fixed arm asked; empty when all is as asked.

    An arm that runs without a rule in its name would be a wrong figure, not a small one.
    """
    pairs = [(f.name, getattr(asked, f.name), getattr(taken, f.name)) for f in fields(asked)]
    return ", ".join(f"{name} = {ours} became {its}" for name, ours, its in pairs if ours != its)


def controller_config(
    options: ControllerOptions, overrides: Mapping[str, object], arm: Arm | None = None
) -> "Config":
    """The configuration of an arm with the control loop, with the model only if one is given.

    `overrides` (dotted keys) win over what the arm says; no arm means `hmas`.

    Raises:
        hmas_agents.config.ConfigError: names file, line and key.
    """
    from hmas_agents.config import load_config

    known = None if arm is None else arm.contender
    return load_config(
        options.config_path,
        {
            "control.mode": "act",
            "model.enabled": options.asks_model,
            "model.base_url": options.model_url,
            "model.name": options.model_name or None,
            "control.start_policy": (arm and arm.start) or None,
            **({} if known is None else known.overrides),
            **overrides,
        },
    )
