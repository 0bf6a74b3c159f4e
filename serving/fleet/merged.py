"""What do the answers of replicas look like as those of one engine? Pure functions.

Counts and seconds merge as those of data-parallel ranks do (`engines.ranks`); `ranks` of a
fleet's snapshot are all ranks of all replicas, each with the name of its replica.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from serving.contracts import Ack, ContractAck, Snapshot
from serving.engines.ranks import least_clamped, sum_up

_NAMED = 3  # replicas in one line of text


def merge_shots(
    shots: Mapping[str, Snapshot], away: Mapping[str, str], ours: str, journal_head: int
) -> Snapshot:
    """One snapshot of all replicas that answered.

    Policy, limits and owner are those of the controller `ours` where it holds any replica, else
    of whoever holds most of them, nobody included: a replica that another controller holds does
    not keep ours from the rest. Any replica that is stopped stops the fleet.

    Args:
        shots: by replica, at least one.
        away: why others did not answer.
        ours: the controller whose decision the fleet has; empty is none.
        journal_head: of the fleet.
    """
    ranks = [
        replace(rank, replica=name)
        for name, shot in shots.items()
        for rank in shot.ranks or (shot,)
    ]
    owners = Counter(rank.controller_id for rank in ranks)
    most = max(owners, key=lambda owner: (owners[owner], not owner, owner))
    owner = ours if ours and ours in owners else most
    lead = max((rank for rank in ranks if rank.controller_id == owner), key=lambda r: r.epoch)
    merged = sum_up(ranks, lead, journal_head)
    return replace(merged, replica="", away=dict(away))


def merge_acks(acks: Mapping[str, Ack], away: Mapping[str, str]) -> Ack:
    """One answer for all: accepted if any replica accepted; the others are named.

    Args:
        acks: by replica, at least one.
        away: why others did not answer.
    """
    refused = {name: ack.reason for name, ack in acks.items() if not ack.accepted}
    reasons = [*named(refused, "refused"), *named(away, "is away")]
    if len(refused) == len(acks) and len(set(refused.values())) == 1:
        every = f"every replica refused: {next(iter(refused.values()))}"
        reasons = [every, *named(away, "is away")]
    first = next(iter(acks.values())).reason
    return Ack(
        accepted=len(refused) < len(acks),
        epoch=max(ack.epoch for ack in acks.values()),
        reason="; ".join(reasons) or first,
        clamped=least_clamped(acks.values()),
    )


def merge_contract_acks(acks: Mapping[str, ContractAck], away: Mapping[str, str]) -> ContractAck:
    """One answer for all: accepted if every replica that answered accepted."""
    refused = {name: ack.reason for name, ack in acks.items() if not ack.accepted}
    reasons = [*named(refused, "refused"), *named(away, "is away")]
    lead = max(acks.values(), key=lambda ack: len(ack.changes))  # they may hold different ones
    return ContractAck(
        accepted=not refused,
        epoch=max(ack.epoch for ack in acks.values()),
        epoch_before=max(ack.epoch_before for ack in acks.values()),
        reason="; ".join(reasons) or lead.reason,
        changes=lead.changes,
    )


def named(reasons: Mapping[str, str], what: str) -> list[str]:
    """`replica a WHAT: REASON` for the first few, and how many more there are."""
    some = list(reasons.items())[:_NAMED]
    more = len(reasons) - len(some)
    lines = [f"replica {name} {what}: {reason}" for name, reason in some]
    return lines + [f"and {more} more"] * bool(more)
