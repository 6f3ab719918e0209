"""What happened lately, and what happens now."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from odm_agent.cli.options import ConfigOption, JsonOption, SocketOption
from odm_agent.cli.output import say
from odm_agent.cli.where import locate
from odm_agent.control.answers import Events, EventView
from odm_agent.control.client import ControlClient


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(events)


def events(
    config: ConfigOption = None,
    socket: SocketOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Tell what happened: rotations, ends, handovers, refusals, alarms; the oldest first."""
    with locate(config, socket).client() as client:
        try:
            for event in _told(client, follow=follow):
                say(_line_of_json(event) if json else _line(event))
        except KeyboardInterrupt:
            return


def _told(client: ControlClient, *, follow: bool) -> Iterator[EventView]:
    """The events that the agent has kept; to follow: without end."""
    found = client.ask("events", Events, after=0)
    yield from found.events
    while follow:
        found = client.ask("events", Events, after=found.newest, wait=True)
        if found.lost:
            say(
                f"odm-agent: {found.lost} events were missed: too many in too little time", err=True
            )
        yield from found.events


def _line_of_json(event: EventView) -> str:
    return msgspec.json.encode(event).decode()


def _line(event: EventView) -> str:
    """What happened, to whom, and what else there is to say."""
    words = [event.time, f"{event.event:10}"]
    words += [word for word in (event.class_, event.prefix, event.type, event.address) if word]
    if event.new:
        words.append(f"-> {event.new}")
    if event.detail:
        words.append(f"({event.detail})" if len(words) > 2 else event.detail)
    return " ".join(words)
