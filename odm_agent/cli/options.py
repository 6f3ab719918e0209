"""Options that several commands share, and what they stand for."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from odm_agent.cli import complete
from odm_agent.config.schema import AgentConfig
from odm_agent.control.client import ControlClient
from odm_agent.core.model import TYPES, AddressType

DEFAULT_CONFIG: Final = Path("/etc/odm-agent/odm-agent.toml")
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


def parse_type(word: str | None) -> AddressType | None:
    """The type that an option names; a usage error for any other word."""
    if word is None:
        return None
    for type_ in TYPES:
        if type_.word == word:
            return type_
    known = ", ".join(type_.word for type_ in TYPES)
    raise typer.BadParameter(f"no address type is called {word!r}; there are {known}")


@dataclass(frozen=True, slots=True)
class Where:
    """Where this agent's things are, as far as they can be known without it."""

    config: Path
    socket: Path
    pin_dir: Path
    #: The attach point; empty: the cgroup v2 root.
    cgroup: str = ""

    def client(self) -> ControlClient:
        """A connection to the agent, not yet opened."""
        return ControlClient(self.socket)


def locate(config: Path | None, socket: Path | None) -> Where:
    """Options first, then the configuration (even one the agent would refuse), then defaults."""
    path = config if config is not None else DEFAULT_CONFIG
    agent = agent_settings(path)
    return Where(
        config=path,
        socket=socket if socket is not None else Path(agent.socket),
        pin_dir=Path(agent.pin_dir),
        cgroup=agent.cgroup,
    )


def _agent_section(path: Path) -> dict[str, Any]:
    """The `[agent]` table as it stands in the file, unchecked; raises OSError and ValueError."""
    import tomllib

    section = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("agent", {})
    if not isinstance(section, dict):
        raise ValueError("agent is not a table")
    return section


def hides_pins(path: Path) -> str | None:
    """Why a file that is there doesn't tell where an agent's pins are; None: it does, or is not."""
    try:
        named = _agent_section(path).get("pin_dir")
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"it can't be read ({error.strerror})"
    except ValueError as error:
        return f"it can't be read ({error})"
    if named is not None and agent_settings(path).pin_dir != named:
        return f"its agent.pin_dir is {named!r}"
    return None


def agent_settings(path: Path) -> AgentConfig:
    """The `[agent]` table as far as it makes sense by itself: keys that do not get their default.

    For commands that must work when the rest of the configuration is broken, or gone.
    """
    from odm_agent.config.check import check_agent

    try:
        section = _agent_section(path)
    except (OSError, ValueError):
        section = {}
    kept: dict[str, Any] = {}
    for key in AgentConfig.__struct_fields__:
        if key in section:
            with contextlib.suppress(msgspec.ValidationError):
                alone = msgspec.convert({key: section[key]}, type=AgentConfig)
                # E.g. a relative path would lead to whatever lies where the command is called.
                if not check_agent(alone):
                    kept[key] = section[key]
    return msgspec.convert(kept, type=AgentConfig)
