"""A fake agent on a real control socket, and the command line in this process."""

import asyncio
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from odm_agent.cli.app import build
from odm_agent.control.answers import (
    AddressView,
    ClassView,
    Events,
    Membership,
    PrefixView,
    ReloadResult,
    SocketView,
    Status,
)
from odm_agent.control.server import ControlServer, Handler

STATUS = Status(
    version="0.1.0",
    abi=1,
    pid=os.getpid(),
    since=1.7e9,
    config="/etc/odm-agent/odm-agent.toml",
    config_loaded=1.7e9,
    namespace_cookie=1,
    cgroup="/sys/fs/cgroup",
    pin_dir="/sys/fs/bpf/odm",
    programs=11,
    prefixes=2,
    addresses=2,
    classes=2,
)
PREFIXES = [
    PrefixView(
        id=1,
        name="isp6",
        type="fixed",
        prefix="2001:db8:1::/64",
        family="ipv6",
        interface="eth0",
        gateway="fe80::1",
        placement="delegated",
        pool=1,
        state="ready",
        addresses=1,
        table=865301,
        mark=0x1000000,
    ),
    PrefixView(
        id=2,
        name="lte4",
        type="nonpersistent",
        prefix="192.0.2.0/24",
        family="ipv4",
        interface="wwan0",
        placement="on-link",
        pool=1,
        state="waiting",
        reason="there is no interface wwan0",
        addresses=0,
        table=865302,
        mark=0x2000000,
    ),
]
ADDRESSES = [
    AddressView(
        address="2001:db8:1::7",
        prefix="isp6",
        type="fixed",
        family="ipv6",
        interface="lo",
        state="ready",
        sockets=1,
    )
]
CLASSES = [
    ClassView(
        id=1,
        name="ssh",
        mode="enforce",
        allow=["fixed", "session-lasting"],
        default="session-lasting",
        on_failure="closed",
        cgroups=["/sys/fs/cgroup/system.slice/ssh.service"],
        sockets=1,
    ),
    ClassView(id=2, name="web", mode="audit", allow=[], on_failure="open"),
]


def socket_view(**changes: Any) -> SocketView:
    """A socket of class ssh, but for `changes`."""
    return msgspec.structs.replace(
        SocketView(
            cookie=7,
            pid=42,
            process="ssh",
            class_="ssh",
            type="fixed",
            protocol="tcp",
            state="ESTABLISHED",
            source="[2001:db8:1::7]:22",
            destination="[2001:db8::1]:50000",
            cgroup="/sys/fs/cgroup/system.slice/ssh.service",
        ),
        **changes,
    )


SOCKETS = [
    socket_view(),
    socket_view(cookie=8, pid=43, process="curl", class_="web", type="unspecified"),
    socket_view(cookie=9, pid=0, process="", class_="unclassified", type="unspecified"),
]


@dataclass
class FakeAgent:
    """`answers` may be changed by a test: verb -> what to return, or the exception to raise."""

    socket: Path
    answers: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def handler(self, verb: str) -> Handler:
        async def answer(arguments: dict[str, Any]) -> Any:
            self.calls.append((verb, arguments))
            value = self.answers[verb]
            if isinstance(value, Exception):
                raise value
            return value

        return answer

    def called(self, verb: str) -> list[dict[str, Any]]:
        """The arguments of all calls of `verb`."""
        return [arguments for name, arguments in self.calls if name == verb]


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    """A fake agent that serves from a thread of its own."""
    with tempfile.TemporaryDirectory(prefix=f"odm-cli-{os.getpid()}-") as folder:
        fake = FakeAgent(
            Path(folder, "c.sock"),
            {
                "status": STATUS,
                "prefixes": PREFIXES,
                "addresses": ADDRESSES,
                "sockets": SOCKETS,
                "classes": CLASSES,
                "resolve": Membership(class_="ssh"),
                "reload": ReloadResult(config="/etc/odm-agent/odm-agent.toml"),
                "classify": None,
                "unclassify": None,
                "lifetimes": [],
                "rotate": [],
                "usage": [],
                "events": Events(newest=0),
            },
        )
        ready = threading.Event()
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()

        async def serve() -> None:
            handlers = {verb: fake.handler(verb) for verb in fake.answers}
            async with ControlServer(fake.socket, handlers):
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
        thread.start()
        try:
            assert ready.wait(5)
            yield fake
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()


Cli = Callable[..., Result]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run `odm-agent ARGUMENTS` in this process."""
    monkeypatch.delenv("ODM_AGENT_SOCKET", raising=False)
    runner = CliRunner()
    return lambda *arguments: runner.invoke(build(), [str(each) for each in arguments])
