"""The agent's own process holds no module that it never calls."""

import subprocess
import sys

import pytest

from odm_agent import isolated

_LOADED = (
    "import sys; from odm_agent import daemon; from pathlib import Path;"
    " assert daemon.serve(Path('/nowhere/odm-agent.toml')) == 4; print(*sys.modules)"
)


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """What is loaded once the agent has found that there is no configuration."""
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("odm-agent: /nowhere/odm-agent.toml"), done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", ["typer", "click", "rich", "pydantic", "bcc", "pyroute2.ndb.main"])
def test_what_the_agent_does_not_call_is_not_loaded(loaded: set[str], name: str) -> None:
    assert name not in loaded


def test_what_it_calls_of_pyroute2_works_without_the_rest(loaded: set[str]) -> None:
    assert "pyroute2.iproute.linux" in loaded


def test_run_becomes_this_module() -> None:
    line = isolated.command(isolated.AGENT, "/nowhere/odm-agent.toml")
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("odm-agent: /nowhere/odm-agent.toml")
