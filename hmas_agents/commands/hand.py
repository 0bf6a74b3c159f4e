"""`hmas apply`, `pin`, `release`, `stop`, `start`: how does a person take the wheel?

Each shows what would change, asks, does it, and writes into the ledger who asked. The engine
ranks a person's decision above a controller's, and the kill switch above both: see
`serving.hook.lease`.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from hmas_agents.commands.exits import FAILED, CommandError
from hmas_agents.commands.options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    TokenOption,
    UrlOption,
)
from hmas_agents.commands.wheel import Hand, read_duration
from serving.contracts import PERSON, PINNED_S
from serving.hook.lease import owned_by
from serving.policies import format_policy

PolicyOption = Annotated[
    str | None, typer.Option("--policy", help="As in `edf:kappa=3`.", metavar="POLICY")
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option("--limit", help="As in token_budget=1024. Repeatable.", metavar="NAME=VALUE"),
]
RuleOption = Annotated[
    list[str] | None, typer.Option("--rule", help="+slack or -slack. Repeatable.", metavar="RULE")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the ledger.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
Begin = Callable[[str], Hand]


def by_hand(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that whoever takes the wheel has, after its own.

    It is called with a function first, which makes the `Hand` of the verb that it is given.
    """

    def run(
        *, reason: ReasonOption = "", yes: YesOption = False, as_json: JsonOption = False,
        url: UrlOption = None, token_file: TokenOption = None, ledger: LedgerOption = None,
        config: ConfigOption = None, **own: Any,
    ) -> None:  # fmt: skip
        def begin(verb: str) -> Hand:
            return Hand(verb, url, token_file, ledger, config, reason, yes=yes, as_json=as_json)

        command(begin, **own)

    first = list(inspect.signature(command).parameters.values())[1:]
    shared = list(inspect.signature(run).parameters.values())[:-1]
    run.__signature__ = inspect.Signature([*first, *shared])  # type: ignore[attr-defined]  # Typer's
    run.__doc__ = command.__doc__
    return run


@by_hand
def apply(
    begin: Begin,
    *,
    policy: PolicyOption = None,
    limit: LimitOption = None,
    rule: RuleOption = None,
    for_: Annotated[
        str, typer.Option("--for", help="How long: 90s, 15m, 2h, 1d.", metavar="TIME")
    ] = "15m",
) -> None:
    """Put a policy, limits or rules in force by hand, for a while.

    What is not named stays as it is. Controllers stand by meanwhile. When the time is over, or
    after `hmas release`, the engine's default comes back, and a controller takes over.

      hmas apply --policy edf:kappa=3 --rule +slack --rule -serial

      hmas apply --limit token_budget=1024 --for 2h --reason "long prompts tonight"

      hmas apply --policy slide --yes --json          for scripts
    """
    if policy is None and not limit and not rule:
        raise CommandError("name --policy, --limit or --rule; `hmas pin` holds what is in force")
    hand = begin("apply")
    hand.put(policy, limit or [], rule or [], read_duration(for_), f"for {for_}")


@by_hand
def pin(
    begin: Begin,
    *,
    policy: PolicyOption = None,
    limit: LimitOption = None,
    rule: RuleOption = None,
) -> None:
    """Hold what is in force, with the changes given, until `hmas release`.

    Controllers stand by meanwhile. A restart of the server forgets it.

      hmas pin                                        nobody changes anything

      hmas pin --policy fcfs --reason "comparing"
    """
    hand = begin("pin")
    hand.put(policy, limit or [], rule or [], PINNED_S, "until `hmas release`")


@by_hand
def release(begin: Begin) -> None:
    """End what `hmas apply` or `hmas pin` put in force, whoever asked for it.

    The engine's default comes back at once, and a controller that stands by takes over.
    """
    hand = begin("release")
    owner = hand.before.controller_id
    if not owner.startswith(PERSON):
        held = owned_by(owner, hand.before.lease_left_s) if owner else "nobody holds the engine"
        raise CommandError(f"{held}: nothing to release; `hmas stop` keeps controllers out", FAILED)
    held = format_policy(hand.before.policy, hand.before.params)
    lines = [f"{held} ends, and the engine's default comes back; a controller may take over"]
    hand.do(lines, lambda: hand.engine.release(owner))


@by_hand
def stop(begin: Begin) -> None:
    """The kill switch: the engine's default from its next step on, and nobody decides.

    It holds on every data-parallel rank until `hmas start`, whoever owns the lease and whatever
    controllers come. They stand by. A restart of the server forgets it.

      hmas stop --reason "odd latencies"

      hmas stop --yes                                 without a question
    """
    hand = begin("stop")
    lines = ["the engine's default comes back at its next step; nobody decides until `hmas start`"]
    hand.do(lines, lambda: hand.engine.stop(hand.who, hand.reason))


@by_hand
def start(begin: Begin) -> None:
    """End `hmas stop`: controllers that stand by may act again."""
    hand = begin("start")
    lines = ["decisions are let in again; a controller that stands by takes over"]
    hand.do(lines, lambda: hand.engine.start(hand.who))
