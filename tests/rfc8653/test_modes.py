"""D8: what a class's mode makes of each kind of refusal, at every hook that can refuse.

`enforce` refuses and counts, `audit` counts and lets go on (on the wire too), `off` is as if the
class were not there, which is to be refused as every socket of no class; `strict` takes untyped
sources away as well.
"""

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import pytest

from odm_agent.core.model import AddressType, Family
from odm_agent.datapath.maps.writer import MapWriter
from tests.lab.agent import LabClass, Settings
from tests.lab.cases import each_kind
from tests.lab.client import Kind, ask, call, exchange, outcome, source_cmsg
from tests.lab.host import CORRESPONDENT_2, FIXED, LINKS, NONPERSISTENT, PREFIXES
from tests.lab.world import STANDARD, World
from tests.rfc8653.test_servers import wildcard_server

_MODES: Final = ("enforce", "audit", "off")
_SETTINGS: Final[Settings] = replace(
    STANDARD,
    classes={
        f"{mode}-{name}": LabClass(
            allow=(NONPERSISTENT,), mode=mode, strict=name == "strict", refuse=("raw", "xdp")
        )
        for mode in _MODES
        for name in ("plain", "strict")
    },
)
#: No prefix of the type is configured: what then, for its default and for who asks?
_WITHOUT: Final[Settings] = replace(
    STANDARD,
    prefixes=[prefix for prefix in PREFIXES if prefix.type is not NONPERSISTENT],
    classes={
        name: LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT, on_failure=name)
        for name in ("open", "closed")
    },
)
_AF_XDP: Final = 44
_SOL_XDP: Final = 283
_XDP_UMEM_FILL_RING: Final = 5
_PORT: Final = 27001  # of the wildcard server


@dataclass(frozen=True)
class Hook:
    """A refusal at one hook: what is tried, and what the three modes make of it.

    `told`: what the application is told by mode. `arrives`: whether the Fixed source is then seen
    on the wire in audit.
    """

    name: str
    attempt: Callable[[World], str]
    told: dict[str, str]
    arrives: bool = True


def _asks(world: World) -> str:
    with Kind.UDP6.open() as sock:
        return outcome(lambda: ask(sock, FIXED))


def _binds(world: World) -> str:
    address = _fixed[world]
    return outcome(lambda: call(Kind.UDP6, bind=(address, 0)))


def _names_a_source(world: World) -> str:
    address = _fixed[world]
    with Kind.UDP6.open() as sock:
        return outcome(lambda: sock.sendmsg([b"x"], source_cmsg(address), 0, Kind.UDP6.destination))


def _is_routed(world: World) -> str:
    with Kind.UDP6.open() as sock:
        to = (CORRESPONDENT_2[Family.IPV6], Kind.UDP6.port)
        return outcome(lambda: exchange(sock, Kind.UDP6, to))


def _makes_a_raw_socket(world: World) -> str:
    return outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close())


def _sets_xdp_up(world: World) -> str:
    with socket.socket(_AF_XDP, socket.SOCK_RAW) as sock:
        return outcome(lambda: sock.setsockopt(_SOL_XDP, _XDP_UMEM_FILL_RING, 64))


_REFUSED: Final = {"enforce": "EACCES", "audit": "ok", "off": "EACCES"}
_CLOSED: Final = {"enforce": "EACCES", "audit": "ok", "off": "ok"}
_HOOKS: Final = (
    Hook("setsockopt", _asks, _REFUSED, arrives=False),
    Hook("bind", _binds, _REFUSED),
    Hook("sendmsg", _names_a_source, _REFUSED),
    Hook("egress", _is_routed, {"enforce": "EPERM", "audit": "ok", "off": "EPERM"}),
    Hook("sock-create", _makes_a_raw_socket, _CLOSED, arrives=False),
    Hook("setsockopt", _sets_xdp_up, _CLOSED, arrives=False),
)
#: The world's Fixed address: known before an application is forked.
_fixed: dict[World, str] = {}


@pytest.fixture(scope="module")
def modes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world with a class of each mode; a route gives the Fixed source to one destination."""
    with World(tmp_path_factory.mktemp("modes"), _SETTINGS) as made:
        _fixed[made] = made.address(FIXED, Family.IPV6)
        gateway = str(LINKS["A", Family.IPV6][1])
        route = (f"{CORRESPONDENT_2[Family.IPV6]}/128", "via", gateway, "dev", "w0")
        made.site.host.ip("route", "add", *route, "src", _fixed[made])
        yield made
        del _fixed[made]


def _counted(world: World, hook: str, verdict: str) -> int:
    with MapWriter(world.agent.pins) as datapath:
        return sum(
            count
            for key, count in datapath.verdicts().items()
            if (key.hook, key.verdict) == (hook, verdict)
        )


@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("hook", _HOOKS, ids=lambda hook: hook.attempt.__name__.strip("_"))
def test_D8_mode_of_a_class_at_each_hook(modes: World, mode: str, hook: Hook) -> None:
    before = {each: _counted(modes, hook.name, each) for each in ("refuse", "audit")}
    with modes.captures() as captures:
        told = modes.place(f"{mode}-plain").do(lambda: hook.attempt(modes))
        seen = _fixed[modes] in {str(source) for source in captures.both()}
    assert told == hook.told[mode]
    assert seen == (hook.arrives and mode == "audit")
    counted = {each: _counted(modes, hook.name, each) - n for each, n in before.items()}
    refused = told != "ok"
    assert counted["refuse"] == int(refused)
    assert (counted["audit"] > 0) == (mode == "audit")


@pytest.mark.parametrize("mode", _MODES)
def test_D8_mode_of_a_class_at_ingress(modes: World, mode: str) -> None:
    """A wildcard listener, called on the Fixed address."""
    kind, address = Kind.TCP6, _fixed[modes]
    before = {each: _counted(modes, "ingress", each) for each in ("refuse", "audit")}
    with modes.place(f"{mode}-plain").background(wildcard_server(kind)):
        answer = modes.peer.dial("tcp", address, _PORT, timeout_s=0.4)
    counted = {each: _counted(modes, "ingress", each) - n for each, n in before.items()}
    if mode == "audit":
        assert answer.get("from") == address
        assert (counted["refuse"], counted["audit"] > 0) == (0, True)
    else:
        assert answer == {"error": "timeout"}
        assert (counted["refuse"] > 0, counted["audit"]) == (True, 0)


@pytest.mark.parametrize("mode", _MODES)
def test_D8_strict_in_each_mode(modes: World, mode: str) -> None:
    """Untyped sources: refused, counted, or as for every socket of no class."""
    place = modes.place(f"{mode}-strict")
    ordinary = modes.address(AddressType.UNSPECIFIED, Family.IPV4)
    told = [
        place.do(lambda: outcome(lambda: call(Kind.TCP4))),
        place.do(lambda: outcome(lambda: call(Kind.UDP4, bind=(ordinary, 0)))),
    ]
    assert told == (["EACCES"] * 2 if mode == "enforce" else ["ok"] * 2)


def test_D8_a_mode_that_changes_is_in_force_at_once_for_open_sockets(modes: World) -> None:
    """The row of the class is looked at with every packet: no socket has to be opened anew."""

    def application(ready: Callable[[object], None]) -> None:
        with Kind.SENDTO6.open() as sock:
            sock.settimeout(5)
            to = (CORRESPONDENT_2[Family.IPV6], Kind.SENDTO6.port)
            last = ""
            while True:
                told = outcome(lambda: exchange(sock, Kind.SENDTO6, to))
                if told != last:
                    ready(told)
                last = told
                time.sleep(0.01)

    wider = {**_SETTINGS.classes}
    wider["enforce-plain"] = replace(wider["enforce-plain"], mode="audit")
    agent = modes.agent
    with modes.place("enforce-plain").conversation(application) as talk:
        assert talk.hear() == "EPERM"
        try:
            agent.configure(replace(_SETTINGS, classes=wider))
            assert agent.reload().returncode == 0
            assert talk.hear() == "ok"
        finally:
            agent.configure(_SETTINGS)
            assert agent.reload().returncode == 0
        assert talk.hear() == "EPERM"


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which one type has no address."""
    with World(tmp_path_factory.mktemp("without"), _WITHOUT) as made:
        yield made


@pytest.mark.parametrize("name", ["open", "closed"])
@each_kind()
def test_D8_on_failure_decides_about_defaults_and_never_about_requests(
    without: World, kind: Kind, name: str
) -> None:
    """An untyped address in the place of one that was asked for would be an accident."""
    place = without.place(name)
    by_default = place.do(lambda: outcome(lambda: call(kind)))
    assert by_default == ("ok" if name == "open" else "EADDRNOTAVAIL")
    assert place.do(lambda: outcome(lambda: call(kind, NONPERSISTENT))) == "EADDRNOTAVAIL"
