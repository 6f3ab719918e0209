"""How reads look: JSON for programs, a table for people."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from odm_agent.text import printable, printable_lines, printable_values

T = TypeVar("T")

#: Colours of the words that want to be seen.
STYLES = {
    "ready": "green",
    "ok": "green",
    "anyip": "green",
    "waiting": "yellow",
    "tentative": "yellow",
    "warning": "yellow",
    "audit": "yellow",
    "withdrawn": "red",
    "failed": "red",
    "missing": "red",
    "off": "red",
}


def say(text: str, *, err: bool = False) -> None:
    """A line of text for people, on standard error if `err`."""
    typer.echo(printable_lines(text), err=err)


def print_json(value: Any) -> None:
    """`value` as indented JSON: the stable form."""
    data = msgspec.json.encode(printable_values(msgspec.to_builtins(value)))
    typer.echo(msgspec.json.format(data, indent=2).decode())


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table, or the sentence `empty` if it has no rows. None shows as a dash."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    if table.row_count:
        _console().print(table)
    else:
        say(empty)


def print_list(
    found: Sequence[T],
    headings: Sequence[str],
    row: Callable[[T], Sequence[object]],
    *,
    empty: str,
    json: bool,
) -> None:
    """What was found as JSON, or as a table with a `row` for each (`empty`: see `print_table`)."""
    if json:
        print_json(found)
    else:
        print_table(headings, map(row, found), empty)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, _cell(value))
    _console().print(table)


def moment(seconds: float) -> str:
    """Unix seconds as a local time that people read."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _cell(value: object) -> Text:
    if value is None or value == "":
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, list | tuple):
        return Text(", ".join(printable(str(each)) for each in value) if value else "-")
    # Text, not markup: an address in brackets is no style.
    return Text(printable_lines(str(value)), style=STYLES.get(str(value), ""))


def _console() -> Console:
    """A console for the standard output of now; piped, it is as wide as its rows need."""
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=400)
    return console
