"""Where an agent's things are, as far as that can be known without it."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from odm_agent.config.file import contents
from odm_agent.config.schema import AgentConfig
from odm_agent.control.client import ControlClient

DEFAULT_CONFIG: Final = Path("/etc/odm-agent/odm-agent.toml")


@dataclass(frozen=True, slots=True)
class Where:
    """Files and folders of one agent."""

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

    section = tomllib.loads(contents(path).decode("utf-8-sig")).get("agent", {})
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
