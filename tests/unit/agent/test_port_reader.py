"""What servers send is read in pieces, and no faster than it is dealt with."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from odm_agent.agent import paced_reader
from odm_agent.agent.port_reader import PortReader
from odm_agent.kernel.dhcp_port import Datagram


class Port:
    """One end of a pair of sockets; `AT_ONCE` datagrams are taken at a time."""

    AT_ONCE = 3

    def __init__(self) -> None:
        self.far, self._near = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._near.setblocking(False)

    def fileno(self) -> int:
        return self._near.fileno()

    def receive(self) -> list[Datagram]:
        found = []
        for _ in range(self.AT_ONCE):
            try:
                found.append(Datagram(self._near.recv(100), "fe80::1%w0"))
            except BlockingIOError:
                break
        return found

    def close(self) -> None:
        self._near.close()
        self.far.close()


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port()
    yield made
    made.close()


def run(port: Port, seconds: float, waiting: int = 0, *, leave: bool = False) -> list[str]:
    """What was heard within so many seconds."""
    heard: list[str] = []

    async def main() -> None:
        reader = PortReader(lambda name, data, sender: heard.append(data.decode()), lambda: waiting)
        reader.attach(asyncio.get_running_loop())
        reader.listen("isp", port)  # type: ignore[arg-type]
        if leave:
            reader.leave(port)  # type: ignore[arg-type]
        await asyncio.sleep(seconds)

    asyncio.run(main())
    return heard


def test_what_comes_is_given_to_the_source(port: Port) -> None:
    port.far.send(b"answer")
    assert run(port, 0.2) == ["answer"]


def test_a_piece_at_a_time(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced_reader, "_PAUSE_S", 3600.0)
    monkeypatch.setattr(paced_reader, "_SOONER", 0)
    for number in range(5):
        port.far.send(b"%d" % number)
    assert run(port, 0.2) == ["0", "1", "2"]
    monkeypatch.setattr(paced_reader, "_PAUSE_S", 0.0)
    assert run(port, 0.2) == ["3", "4"]


def test_so_many_pieces_follow_each_other_and_then_no_more(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paced_reader, "_PAUSE_S", 3600.0)
    monkeypatch.setattr(paced_reader, "_SOONER", 1)
    for number in range(9):
        port.far.send(b"%d" % number)
    assert run(port, 0.2) == ["0", "1", "2", "3", "4", "5"]


def test_nothing_while_too_much_waits(port: Port) -> None:
    port.far.send(b"answer")
    assert run(port, 0.2, waiting=64) == []
    assert run(port, 0.2, waiting=63) == ["answer"]


def test_nothing_from_a_port_that_was_left(port: Port) -> None:
    assert run(port, 0.2, leave=True) == []
    assert port.fileno() == -1
