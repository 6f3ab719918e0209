"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Final

import typer

from odm_agent.cli import complete
from odm_agent.cli.where import DEFAULT_CONFIG
from odm_agent.core.model import TYPES, AddressType

SOCKET_VARIABLE: Final = "ODM_AGENT_SOCKET"

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help=f"The agent's configuration file.  [default: {DEFAULT_CONFIG}]",
        show_default=False,
    ),
]
SocketOption = Annotated[
    Path | None,
    typer.Option(
        "--socket",
        "-s",
        envvar=SOCKET_VARIABLE,
        help="The agent's control socket.  [default: agent.socket of the configuration]",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TypeOption = Annotated[
    str | None,
    typer.Option(
        "--type",
        "-t",
        metavar="TYPE",
        help=f"An address type: {', '.join(type_.word for type_ in TYPES)}.",
        autocompletion=complete.types,
        show_default=False,
    ),
]


ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class",
        "-C",
        metavar="CLASS",
        help='Only what is of this class ("unclassified" for what is of none).',
        autocompletion=complete.classes,
        show_default=False,
    ),
]


def parse_type(word: str | None) -> AddressType | None:
    """The type that an option names; a usage error for any other word."""
    if word is None:
        return None
    for type_ in TYPES:
        if type_.word == word:
            return type_
    known = ", ".join(type_.word for type_ in TYPES)
    raise typer.BadParameter(f"no address type is called {word!r}; there are {known}")
