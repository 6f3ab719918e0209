"""An agent's own state on disk, and which of it is about its network namespace."""

from pathlib import Path
from typing import Final

from odm_agent.config.schema import AgentConfig
from odm_agent.journal import Journal, Owner

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def journal_of(agent: AgentConfig, netns_cookie: int) -> Journal:
    """The state of the agent that works with these settings in that network namespace."""
    owner = Owner(_BOOT_ID.read_text().strip(), netns_cookie, agent.pin_dir)
    return Journal(state_file(agent), owner)


def state_file(agent: AgentConfig) -> Path:
    """Where it is, or would be."""
    return Path(agent.state_dir) / "state.db"
