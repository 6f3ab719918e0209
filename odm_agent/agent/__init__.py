"""The agent: everything wired together. `run_agent` serves, `upgrade` renews, `detach` removes."""

from odm_agent.agent.detach import detach
from odm_agent.agent.loop import run_agent
from odm_agent.agent.upgrade import upgrade

__all__ = ["detach", "run_agent", "upgrade"]
