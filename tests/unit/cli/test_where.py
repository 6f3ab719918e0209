"""What commands take from a configuration that the agent would refuse."""

from pathlib import Path

from odm_agent.cli.where import agent_settings
from odm_agent.config.schema import AgentConfig


def test_a_path_that_depends_on_where_the_command_is_called_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "odm-agent.toml"
    path.write_text('[agent]\npin_dir = "odm"\nsocket = "control.sock"\nprotocol = 99\n')
    assert agent_settings(path) == AgentConfig(protocol=99)
