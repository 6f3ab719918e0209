"""What ends: `lifetimes` and `usage` read, `rotate` lets another address take one's place."""

import time
from datetime import datetime
from typing import Annotated

import typer

from odm_agent.cli import complete
from odm_agent.cli.options import (
    ClassOption,
    ConfigOption,
    JsonOption,
    SocketOption,
    TypeOption,
    parse_type,
)
from odm_agent.cli.output import print_json, print_list, say
from odm_agent.cli.where import locate
from odm_agent.config.quantities import seconds
from odm_agent.control.answers import LeaseView, Rotation, UsageView
from odm_agent.text import bar, bytes_words, duration_words


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (lifetimes, rotate, usage):
        app.command()(command)


def lifetimes(
    config: ConfigOption = None,
    socket: SocketOption = None,
    type_word: TypeOption = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix", metavar="NAME", help="Only addresses of this prefix.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the addresses that end, with what is used and left of each; what ends first is first."""
    wanted = parse_type(type_word)
    with locate(config, socket).client() as client:
        found = client.ask("lifetimes", list[LeaseView])
    found = [
        view
        for view in found
        if (wanted is None or view.type == wanted.word) and prefix in (None, view.prefix)
    ]
    print_list(
        found,
        (
            "ADDRESS",
            "PREFIX",
            "TYPE",
            "CLASS",
            "PHASE",
            "TIME",
            "LEFT",
            "BYTES",
            "SENT",
            "ENDS",
            "FIRST",
        ),
        lambda view: (
            *(view.address, view.prefix, view.type, view.class_ or "", view.phase),
            *(
                _time_bar(view),
                _time_left(view),
                _bytes_bar(view),
                _sent(view),
                _ends(view),
                _first(view),
            ),
        ),
        empty="no address ends",
        json=json,
    )


def rotate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="TYPE|PREFIX|ADDRESS",
            help="Which addresses: of a type, of a prefix, or a single one.",
            autocompletion=complete.rotating,
        ),
    ],
    config: ConfigOption = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Let other addresses take the place of these for new sockets; those that have one keep it."""
    with locate(config, socket).client() as client:
        done = client.ask("rotate", list[Rotation], what=what)
    if json:
        print_json(done)
        return
    for each in done:
        say(f"{each.prefix}: {each.old} -> {each.new}")


def usage(
    config: ConfigOption = None,
    socket: SocketOption = None,
    class_name: ClassOption = None,
    type_word: TypeOption = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="DURATION|DATE",
            help='Only since then: "24h", "7d", or a day like 2026-01-31.  [default: all]',
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show how many IP bytes classes have sent from addresses of each type."""
    wanted = parse_type(type_word)
    start = _start(since)
    with locate(config, socket).client() as client:
        found = client.ask("usage", list[UsageView], since=start)
    found = [
        view
        for view in found
        if class_name in (None, view.class_ or "unclassified")
        and (wanted is None or view.type == wanted.word)
    ]
    print_list(
        found,
        ("CLASS", "TYPE", "SENT", "BYTES", "PACKETS"),
        lambda view: (
            *(view.class_ or "unclassified", view.type, bytes_words(view.bytes)),
            *(view.bytes, view.packets),
        ),
        empty="nothing was sent",
        json=json,
    )


def _start(since: str | None) -> float:
    """Unix seconds; a usage error for what is neither a duration nor a day."""
    if since is None:
        return 0.0
    try:
        if "-" in since:
            return max(0.0, datetime.fromisoformat(since).timestamp())
        return max(0.0, time.time() - seconds(since))
    except (ValueError, OverflowError, OSError) as error:
        raise typer.BadParameter(
            f"{since!r} is neither a duration nor a day; write it like 24h, 7d or 2026-01-31",
            param_hint="--since",
        ) from error


def _time_bar(view: LeaseView) -> str | None:
    left = _next(view)
    return None if left is None else bar(view.used_seconds, view.used_seconds + left)


def _time_left(view: LeaseView) -> str | None:
    left = _next(view)
    return None if left is None else duration_words(left)


def _next(view: LeaseView) -> float | None:
    """Seconds until the address is given no more; of a lingering one, until it is gone."""
    if view.phase == "lingering":
        return view.valid_seconds_left
    ends = (view.preferred_seconds_left, view.rotates_in_seconds)
    return min((each for each in ends if each is not None), default=None)


def _bytes_bar(view: LeaseView) -> str | None:
    return None if view.budget_bytes is None else bar(view.used_bytes, view.budget_bytes)


def _sent(view: LeaseView) -> str:
    sent = bytes_words(view.used_bytes)
    if view.budget_bytes is None:
        return sent
    return f"{sent} of {bytes_words(view.budget_bytes)}{' (hard)' if view.hard else ''}"


def _ends(view: LeaseView) -> str:
    if view.phase == "lingering":
        return "with its last socket"
    if view.phase in ("probing", "spare"):
        return "comes next"
    if view.budget_bytes is not None and view.used_bytes >= view.budget_bytes:
        return "now: spent"
    left = _next(view)
    if left is None:
        return "with its budget" if view.budget_bytes is not None else "never"
    rotates = view.rotates_in_seconds is not None and view.rotates_in_seconds == left
    return "rotates" if rotates else "no longer preferred"


def _first(view: LeaseView) -> str | None:
    """Of a prefix that wanders, whether it stands first, and for how long."""
    if view.first is None or view.wanders_in_seconds is None or view.phase == "lingering":
        return None
    return f"for {duration_words(view.wanders_in_seconds)}" if view.first else "no"
