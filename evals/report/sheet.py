"""What is a table, before anyone prints it? Title, columns, rows and a note.

Whoever has figures to show builds sheets; here they become Markdown and terminal tables, and
page.html.j2 draws them in HTML. `show` prints what a command found.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

WIDTH = 120  # columns, of what is no terminal
WIDEST_NAME = 22  # of 80 columns; with more, figures of a table would break in their middle


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table of text. The first `left_aligned` columns are names, the others figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    left_aligned: int = 1


def markdown(sheet: Sheet) -> str:
    """The sheet in Markdown, with its title as a heading."""
    align = ["---" if i < sheet.left_aligned else "---:" for i in range(len(sheet.columns))]
    lines = ["| " + " | ".join(cells) + " |" for cells in (sheet.columns, align, *sheet.rows)]
    note = ["", sheet.note] if sheet.note else []
    return "\n".join([f"## {sheet.title}", "", *lines, *note]) + "\n"


def terminal_name(name: str) -> str:
    """A name for a terminal: of a long one, rules are on a line below policy and parameters."""
    head, plus, rules = name.partition("+")
    if len(name) <= WIDEST_NAME or not plus:
        return name
    return f"{head.rstrip()}\n +{rules}"


def terminal(sheet: Sheet) -> RenderableType:
    """The sheet for a terminal of 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, column in enumerate(sheet.columns):
        named = i < sheet.left_aligned
        justify: JustifyMethod = "left" if named else "right"
        table.add_column(column, justify=justify, no_wrap=named, overflow="fold")
    for row in sheet.rows:
        names = [terminal_name(cell) for cell in row[: sheet.left_aligned]]
        table.add_row(*names, *row[sheet.left_aligned :])
    title = Text(sheet.title, style="table.title")  # a table's own is cut to the table's width
    return Group(title, table, *([sheet.note] if sheet.note else []), "")


def show(document: Any, json_output: bool, *shown: Sheet | str) -> None:
    """What a command found: with `--json` one object (or its text), else tables and lines."""
    if json_output:
        typer.echo(document if isinstance(document, str) else json.dumps(document, indent=1))
        return
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    for each in shown:
        if isinstance(each, Sheet):
            console.print(terminal(each))
        else:
            console.print(each, markup=False, soft_wrap=True)
