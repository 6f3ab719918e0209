"""D18: what changes by itself is in the log, once, and in the service manager's status."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from odm_agent.core.model import Family
from tests.kernel.agent.conftest import eventually
from tests.kernel.agent.test_life import BROKEN
from tests.lab.agent import Agent
from tests.lab.host import FIXED
from tests.lab.world import World


def _lines(agent: Agent, word: str, level: str = "") -> list[str]:
    return [
        line for line in agent.log.read_text().splitlines() if word in line and level in line[:8]
    ]


@contextmanager
def _manager(agent: Agent) -> Iterator[socket.socket]:
    """The agent's notification socket, for as long as a test wants to listen."""
    path = agent.folder / "notify"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(10)
        yield manager


def _status(manager: socket.socket, word: str) -> str:
    """The next STATUS that holds a word."""
    while True:
        told = manager.recv(4096).decode()
        if told.startswith("STATUS=") and word in told:
            return told.removeprefix("STATUS=")


def test_D18_an_uplink_that_is_lost_and_found_is_one_line_each(own: World) -> None:
    with _manager(own.agent) as manager:
        own.site.b.ip("link", "set", "to-host", "down")
        assert "w1 is down" in _status(manager, "alarms")
        eventually(lambda: bool(_lines(own.agent, "alarm: w1", "WARNING")), "the loss in the log")
        own.site.b.ip("link", "set", "to-host", "up")
        assert _status(manager, "prefixes ready").startswith("8 of 8")
    eventually(lambda: bool(_lines(own.agent, "no alarm any more: w1")), "its end in the log")
    (line,) = _lines(own.agent, "alarm: w1", "WARNING")
    assert all(name in line for name in ("no carrier", "brief4", "brief6", "graceful6"))
    assert len(_lines(own.agent, "no alarm any more: w1")) == 1


def test_D18_what_is_put_back_is_one_line_that_names_it(own: World) -> None:
    fixed = own.address(FIXED, Family.IPV6)
    host = own.site.host
    host.ip("-6", "address", "flush", "dev", "lo", "scope", "global")
    eventually(lambda: own.agent.addresses("fixed6") == [fixed], "the address back")
    eventually(lambda: bool(_lines(own.agent, "put back", "WARNING")), "the line")
    assert "address 2001:db8:a" in _lines(own.agent, "put back")[0]
    for _ in range(20):  # somebody fights with us
        host.ip("-6", "address", "flush", "dev", "lo", "scope", "global")
        eventually(lambda: own.agent.addresses("fixed6") == [fixed], "the address back")
    assert len(_lines(own.agent, "put back")) <= 3


@pytest.mark.parametrize("how", ["command", "signal"])
def test_D18_a_reload_that_is_refused_is_an_error_in_the_log_with_its_reason(
    own: World, how: str
) -> None:
    text = own.agent.config.read_text()
    own.agent.config.write_text(text + BROKEN)
    with _manager(own.agent) as manager:
        if how == "command":
            assert own.agent.reload().returncode == 4
        else:
            own.agent.send(signal.SIGHUP)
        _status(manager, "the last reload was refused")
        assert len(_lines(own.agent, "reload refused", "ERROR")) == 1
        assert f"{own.agent.config}:" in _lines(own.agent, "reload refused")[0]
        own.agent.config.write_text(text)
        assert own.agent.reload().returncode == 0
        assert "refused" not in _status(manager, "8 of 8")


def test_D18_start_and_end_are_told_to_the_service_manager(own: World) -> None:
    with _manager(own.agent) as manager:
        own.agent.stop()
        assert "stays in force" in _status(manager, "stop")
    assert _lines(own.agent, "stopping", "INFO")


def test_D18_a_start_that_fails_is_told_to_the_service_manager(tmp_path: Path) -> None:
    with World(tmp_path, start=False) as world:
        (world.agent.folder / "state").write_text("a file, where the folder should be")
        with _manager(world.agent) as manager:
            world.agent.variables = {"NOTIFY_SOCKET": str(world.agent.folder / "notify")}
            world.agent.launch()
            assert _status(manager, "loading") == "loading programs"
            assert "agent.state_dir" in _status(manager, "not running")
