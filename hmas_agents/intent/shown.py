"""How is what was told written for people? Changes, times of the day, and texts of others."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hmas_agents.forms import UNIX_FROM_S, percent
from hmas_agents.intent.change import Change
from hmas_agents.intent.told import ToldChange

INDENT = " " * 13
Cells = tuple[str, str, str, str]


def change_cells(change: Change) -> Cells:
    """Kind, whose, how much, when."""
    whose = [change.tenant] if change.tenant is not None else []
    whose += [f"class {change.slo_class}"] if change.slo_class is not None else []
    amount = f"{change.amount:g}x"
    how_much = {
        "weight": amount,
        "floor": f"{change.amount:.0%} of the work",
        "slo_scale": f"{amount} targets",
        "shed": f"{change.amount:.0%} refused",
        "expect": f"{amount} requests",
    }[change.kind]
    when = [f"from {change.from_}"] if change.from_ is not None else []
    when += [f"until {change.until}"] if change.until is not None else []
    when += [f"for {change.for_min} min"] if change.for_min is not None else []
    if change.until is None and change.for_min is None:
        when.append("until it is taken back")
    return change.kind, ", ".join(whose) or "all", how_much, " ".join(when)


def change_text(change: Change) -> str:
    """In one line."""
    return " ".join(change_cells(change))


def preview_lines(work: Mapping[str, Any], now_s: float) -> list[str]:
    """What was understood and what the twin says of it; nothing where nothing was understood.

    Args:
        work: `changes` and `forecast`, as the graph `intent` has them.
        now_s: on the engine's clock.
    """
    cells = [change_cells(Change.model_validate(each)) for each in work.get("changes") or []]
    if not cells:
        return []
    widths = [max(map(len, column)) for column in list(zip(*cells, strict=True))[:3]]
    lines: list[str] = []
    for *row, when in cells:
        columns = [printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("   ".join([" " * 10 if lines else "understood", *columns, when]))
    forecast = work["forecast"]
    if why := forecast.get("why_not"):
        return [*lines, f"preview      none: {why}"]
    lines += [
        f"preview      by the twin, {forecast['futures']} futures of the next "
        f"{forecast['horizon_s']:.0f} s as if all of it began now, {forecast['policy']} stays; "
        f"traffic of {now_s - forecast['seen_s']:.0f} s ago",
        f"{INDENT}attainment   now -> then",
    ]
    width = max(len(printable(each["name"])) for each in forecast["shares"])
    lines += [
        f"{INDENT}{printable(each['name']).ljust(width)}   {percent(each['now'])} -> "
        f"{percent(each['then'])}   (±{100 * each['chance']:.1f})"
        for each in forecast["shares"]
    ]
    return lines + [f"{INDENT}{note}" for note in forecast["notes"]]


def told_text(one: ToldChange) -> str:
    """A change with the times that it came to."""
    *what, _ = change_cells(one.change)
    until = "until it is taken back" if one.until_s is None else f"until {local(one.until_s)}"
    return " ".join([*what, f"from {local(one.from_s)}", until])


def local(at_s: float) -> str:
    """Day and time in this machine's time zone; of virtual time, the time since its start."""
    return _local(at_s).strftime("%H:%M" if at_s < UNIX_FROM_S else "%a %H:%M")


def time_of_day(at_s: float) -> str:
    """The time that clocks on the wall show, "HH:MM"; virtual time begins at midnight."""
    return _local(at_s).strftime("%H:%M")


def _local(at_s: float) -> datetime:
    when = datetime.fromtimestamp(at_s, UTC)
    return when if at_s < UNIX_FROM_S else when.astimezone()


def printable(text: str) -> str:
    """On one line, and nothing that a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
