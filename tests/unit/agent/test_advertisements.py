"""Which interfaces are listened to, and what of what is heard reaches a look at the host."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from odm_agent.agent import advertisements
from odm_agent.agent.advertisements import Advertisements
from odm_agent.config.load import parse
from odm_agent.config.schema import Config
from odm_agent.core.errors import KernelError
from odm_agent.core.host import HostState, Link
from odm_agent.core.model import AddressType
from odm_agent.kernel.ra_socket import Heard
from tests.unit.sources.ra.test_codec import CODE, ROUTER, message, option

NET = IPv6Network("2001:db8:7::/64")
WITH = f"[uplinks.wifi]\ninterface = 'wl*'\nadvertised_types = {CODE}\n"
WITHOUT = "[uplinks.wifi]\ninterface = 'wl*'\n"


def config(text: str) -> Config:
    return parse(text, Path("odm-agent.toml"))


class FakeSocket:
    """A pipe that is readable when something is there to be heard."""

    opened: list["FakeSocket"]
    fault: str | None = None

    def __init__(self, interface: str) -> None:
        if self.fault:
            raise KernelError(self.fault)
        self.interface = interface
        self.heard: list[Heard] = []
        self.reads = self.solicited = 0
        self._read, self._write = os.pipe()
        type(self).opened.append(self)

    def fileno(self) -> int:
        return self._read

    def solicit(self) -> None:
        self.solicited += 1

    def say(self, data: bytes, hop_limit: int = 255) -> None:
        self.heard.append(Heard(data, ROUTER, hop_limit))
        os.write(self._write, b"x")

    def receive(self) -> list[Heard]:
        self.reads += 1
        os.read(self._read, 1)
        heard, self.heard = self.heard, []
        return heard

    def close(self) -> None:
        if self._read >= 0:
            os.close(self._read)
            os.close(self._write)
        self._read = -1


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeSocket]]:
    FakeSocket.opened, FakeSocket.fault = [], None
    monkeypatch.setattr(advertisements, "RaSocket", FakeSocket)
    yield FakeSocket
    for each in FakeSocket.opened:
        each.close()


def host(index: int = 2, up: bool = True) -> HostState:
    return HostState(links={"wl0": Link("wl0", index, up=up), "eth0": Link("eth0", 9, up=True)})


def run(body: Callable[[Advertisements, list[int]], Awaitable[None]], text: str = WITH) -> None:
    """`body` is given the object, and a list that grows with each change that it tells."""

    async def main() -> None:
        changes: list[int] = []
        heard = Advertisements(lambda: config(text), lambda: changes.append(1))
        heard.attach(asyncio.get_running_loop())
        await body(heard, changes)
        heard.close()

    asyncio.run(main())


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def test_what_a_router_says_reaches_the_next_look_and_is_told_once() -> None:
    async def body(heard: Advertisements, changes: list[int]) -> None:
        assert not heard.hinted(host()).hints
        (sock,) = FakeSocket.opened
        assert sock.interface == "wl0" and sock.solicited == 1
        sock.say(message(option()))
        await until(lambda: changes)
        assert heard.hinted(host()).hints == {"wl0": {NET: AddressType.FIXED}}
        sock.say(message(option()))
        await until(lambda: sock.reads == 2)
        sock.say(message(option("2001:db8:8::")), hop_limit=64)
        await until(lambda: sock.reads == 3)
        assert changes == [1]

    run(body)


def test_an_interface_that_is_another_one_or_down_is_heard_anew() -> None:
    async def body(heard: Advertisements, changes: list[int]) -> None:
        heard.hinted(host())
        FakeSocket.opened[0].say(message(option()))
        await until(lambda: changes)
        assert not heard.hinted(host(index=3)).hints
        assert len(FakeSocket.opened) == 2
        heard.hinted(host(index=3, up=False))
        await until(lambda: all(each.fileno() < 0 for each in FakeSocket.opened))

    run(body)


def test_nothing_is_listened_to_where_the_configuration_does_not_say_so() -> None:
    async def body(heard: Advertisements, changes: list[int]) -> None:
        state = host()
        assert heard.hinted(state) is state
        assert not FakeSocket.opened

    run(body, WITHOUT)


def test_a_socket_that_can_not_be_opened_is_told_once_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(heard: Advertisements, changes: list[int]) -> None:
        FakeSocket.fault = "not now"
        for _ in range(3):
            heard.hinted(host())
        FakeSocket.fault = None
        heard.hinted(host())
        assert len(FakeSocket.opened) == 1

    with caplog.at_level(logging.WARNING):
        run(body)
    assert len(caplog.records) == 1
