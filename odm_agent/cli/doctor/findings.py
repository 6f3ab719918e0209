"""What a check says, and what it is told about the agent that is to run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from odm_agent.config.schema import AgentConfig

DEFAULTS: Final = AgentConfig()
State = Literal["ok", "missing", "warning"]


class Finding(msgspec.Struct, frozen=True):
    """One line of the report. `remedy` says what to do; empty when nothing needs doing."""

    name: str
    state: State
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """`[agent]` of the configuration in question, and where this host keeps its own settings."""

    agent: AgentConfig = DEFAULTS
    root: Path = Path("/")


def ok(name: str, detail: str) -> Finding:
    """Nothing to do."""
    return Finding(name, "ok", detail)


def missing(name: str, detail: str, remedy: str) -> Finding:
    """The agent cannot do its work without it."""
    return Finding(name, "missing", detail, remedy)


def warning(name: str, detail: str, remedy: str) -> Finding:
    """The agent works, but not everything does, or something may get in its way."""
    return Finding(name, "warning", detail, remedy)
