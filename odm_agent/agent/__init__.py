"""The agent: everything wired together. `run_agent` serves, `detach` takes all of it away."""

from odm_agent.agent.detach import detach
from odm_agent.agent.service import run_agent

__all__ = ["detach", "run_agent"]
