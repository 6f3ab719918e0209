"""C14, D18: an uplink that can't carry packets is as good as none, and everything says so."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import AddressType, Family
from tests.kernel.agent.conftest import eventually
from tests.lab.agent import LabClass
from tests.lab.client import Kind, call, exchange, outcome
from tests.lab.host import LINKS, NONPERSISTENT, PREFIXES, prefix_of, type_of
from tests.lab.netns import address
from tests.lab.place import Ready
from tests.lab.world import STANDARD, World

_SETTINGS: Final = replace(
    STANDARD,
    classes={
        "open": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT, on_failure="open"),
        "closed": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT, on_failure="closed"),
    },
)
_KINDS: Final = (
    *(Kind.TCP6, Kind.TCP4, Kind.MPTCP6, Kind.UDP6, Kind.UDP4, Kind.SENDTO6, Kind.SENDTO4),
    Kind.UDP_MAPPED,
)
_BEHIND_W1: Final = [prefix.name for prefix in PREFIXES if prefix.interface == "w1"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Classes that fail open and closed."""
    with World(tmp_path, _SETTINGS) as made:
        yield made


def _gone(world: World) -> None:
    """By its name, so that the gateway's end stays for the captures."""
    world.site.host.ip("link", "set", "w1", "down")
    world.site.host.ip("link", "set", "w1", "name", "elsewhere")


def _set_down(world: World) -> None:
    world.site.host.ip("link", "set", "w1", "down")


def _without_carrier(world: World) -> None:
    world.site.b.ip("link", "set", "to-host", "down")


def _dormant(world: World) -> None:
    """As a supplicant leaves it until it has authenticated (IEEE 802.1X)."""
    world.site.host.ip("link", "set", "w1", "mode", "dormant", "state", "dormant")


def _port(world: World) -> None:
    """Its addresses are on the bridge now, or will be."""
    world.site.host.ip("link", "add", "bridge", "type", "bridge")
    world.site.host.ip("link", "set", "bridge", "up")
    world.site.host.ip("link", "set", "w1", "master", "bridge")


def _without_ipv6(world: World) -> None:
    world.site.host.sysctl("net/ipv6/conf/w1/disable_ipv6", "1")


def _too_narrow(world: World) -> None:
    """The kernel then takes IPv6 off it (RFC 8200, section 5)."""
    world.site.host.ip("link", "set", "w1", "mtu", "1000")


def _mend(world: World) -> None:
    """The link as it was: what the kernel has flushed is given back by whoever manages it."""
    if "elsewhere" in world.site.host.ip("-o", "link", "show"):
        world.site.host.ip("link", "set", "elsewhere", "name", "w1")
    world.site.host.ip("link", "set", "w1", "nomaster", "mtu", "1500")
    world.site.host.sysctl("net/ipv6/conf/w1/disable_ipv6", "0")
    world.site.host.ip("link", "set", "w1", "up", "mode", "default", "state", "up")
    world.site.b.ip("link", "set", "to-host", "up")
    for family in Family:
        network, near, far = LINKS["B", family]
        address(world.site.b, "to-host", f"{near}/{network.prefixlen}")
        address(world.site.host, "w1", f"{far}/{network.prefixlen}")
        delegated = str(prefix_of(NONPERSISTENT, family).network)
        world.site.b.ip("route", "replace", delegated, "via", str(far))


def _states(world: World, what: str) -> set[str]:
    name = {"prefixes": "name", "addresses": "prefix"}[what]
    return {each["state"] for each in world.agent.read(what) if each[name] in _BEHIND_W1}


def _counted(world: World, metric: str, state: str) -> float:
    """How many nonpersistent ones a scrape counts in a state."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in world.agent.metrics().splitlines()
        if line.startswith(f"{metric}{{") and f'state="{state}"' in line and "nonpers" in line
    )


def _default(world: World, name: str) -> list[str]:
    def application() -> list[str]:
        told = []
        for kind in _KINDS:
            try:
                told.append(type_of(call(kind).seen).word)
            except OSError as error:
                told.append(outcome(lambda error=error: _raise(error)))  # type: ignore[misc]
        return told

    return world.place(name).do(application)


def _raise(error: OSError) -> None:
    raise error


def _asked() -> list[str]:
    return [outcome(lambda kind=kind: call(kind, NONPERSISTENT)) for kind in _KINDS]  # type: ignore[misc]


#: What is told of an interface that is there.
_WHY: Final[dict[Callable[[World], None], str]] = {
    _set_down: "is down (administratively)",
    _without_carrier: "is down (no carrier)",
    _dormant: "is down (dormant)",
}


@pytest.mark.parametrize("absent", [_gone, _set_down, _without_carrier, _dormant, _port])
def test_D8_every_absence_of_an_uplink_is_one_absence(
    world: World, absent: Callable[[World], None]
) -> None:
    agent = world.agent
    assert agent.read("status")["alarms"] == []
    absent(world)
    eventually(lambda: _states(world, "prefixes") == {"withdrawn"}, "the prefixes are withdrawn")
    with world.captures() as captures:
        assert _default(world, "open") == [AddressType.UNSPECIFIED.word] * len(_KINDS)
        assert _default(world, "closed") == ["EADDRNOTAVAIL"] * len(_KINDS)
        assert world.place("open").do(_asked) == ["EADDRNOTAVAIL"] * len(_KINDS)
        assert not captures.strays()
    # Everything that tells says so.
    assert _states(world, "addresses") == {"withdrawn"}
    reasons = {p["reason"] for p in agent.read("prefixes") if p["name"] in _BEHIND_W1}
    alarms = agent.read("status")["alarms"]
    assert len(alarms) == 1, alarms
    (alarm,) = alarms
    assert all("w1" in reason and _WHY.get(absent, "") in reason for reason in reasons)
    assert all(name in alarm for name in ("w1", *_BEHIND_W1))
    assert {p["addresses"] for p in agent.read("prefixes") if p["name"] in _BEHIND_W1} == {0}
    assert (
        _counted(world, "odm_prefixes", "ready") == _counted(world, "odm_addresses", "ready") == 0
    )
    assert _counted(world, "odm_prefixes", "withdrawn") == 2
    assert _counted(world, "odm_addresses", "withdrawn") == 2
    assert "odm_alarms 1.0" in agent.metrics()
    _mend(world)
    eventually(lambda: _states(world, "addresses") == {"ready"}, "the addresses are back")
    assert agent.read("status")["alarms"] == []
    given = [NONPERSISTENT.word] * len(_KINDS)
    eventually(lambda: _default(world, "closed") == given, "they are given again")


@pytest.mark.parametrize("absent", [_without_ipv6, _too_narrow])
def test_D8_an_uplink_that_carries_no_ipv6_is_absent_for_that(
    world: World, absent: Callable[[World], None]
) -> None:
    four = {kind for kind in _KINDS if kind.family is Family.IPV4}

    def expected(otherwise: str) -> list[str]:
        return [NONPERSISTENT.word if kind in four else otherwise for kind in _KINDS]

    absent(world)
    eventually(lambda: "withdrawn" in _states(world, "prefixes"), "some are withdrawn")
    assert _default(world, "open") == expected(AddressType.UNSPECIFIED.word)
    assert _default(world, "closed") == expected("EADDRNOTAVAIL")
    withdrawn = {p["name"] for p in world.agent.read("prefixes") if p["state"] == "withdrawn"}
    assert withdrawn == {p.name for p in PREFIXES if p.interface == "w1" and p.family == 6}
    (alarm,) = world.agent.read("status")["alarms"]
    assert "w1 carries no IPv6" in alarm and all(name in alarm for name in withdrawn)
    _mend(world)
    given = [NONPERSISTENT.word] * len(_KINDS)
    eventually(lambda: _default(world, "closed") == given, "they are given again")
    assert world.agent.read("status")["alarms"] == []


@pytest.mark.parametrize("kind", [Kind.UDP6, Kind.UDP4])
def test_N4_a_conversation_outlives_the_loss_of_its_carrier(world: World, kind: Kind) -> None:
    """Its routes outlast it, as the host's own do: the same socket goes on."""

    def application(ready: Ready) -> None:
        with kind.open() as sock:
            ready(exchange(sock, kind).seen)
            while True:
                try:  # nobody answers meanwhile, and the gateway has to be found again
                    sock.send(b"hello")
                    ready(sock.recv(4096).decode().split()[0])
                except OSError:
                    ready("nothing")

    def routes() -> list[str]:
        return sorted(
            line
            for family in ("-4", "-6")
            for line in world.site.host.ip(family, "route", "show", "table", "all").splitlines()
            if "proto 86" in line and "w1" in line and "default" in line
        )

    before = routes()
    assert before
    with world.place("closed").conversation(application) as talk:
        source = talk.hear()
        assert talk.hear() == source
        _without_carrier(world)
        eventually(lambda: _states(world, "prefixes") == {"withdrawn"}, "the loss is seen")
        while (heard := talk.hear()) != "nothing":
            assert heard == source
        assert [line.replace(" linkdown", "") for line in routes()] == before
        _mend(world)
        while (heard := talk.hear()) != source:
            assert heard == "nothing"
    assert routes() == before


def test_D8_an_address_is_not_probed_where_nobody_could_answer(world: World) -> None:
    """RFC 5227: silence on a link without carrier says nothing about who uses an address there."""
    agent, wanted = world.agent, prefix_of(AddressType.GRACEFUL_REPLACEMENT, Family.IPV4)
    agent.configure(replace(_SETTINGS, prefixes=[p for p in PREFIXES if p.name != wanted.name]))
    assert agent.reload().returncode == 0
    assert wanted.range is not None
    address(world.site.b, "to-host", f"{wanted.range[0]}/26")
    _without_carrier(world)
    eventually(lambda: _states(world, "prefixes") == {"withdrawn"}, "the loss is seen")
    agent.configure(_SETTINGS)
    assert agent.reload().returncode == 0
    assert str(wanted.range[0]) not in world.site.host.ip("-4", "address", "show", "dev", "w1")
    _mend(world)
    second = str(wanted.range[0] + 1)
    eventually(lambda: agent.addresses(wanted.name) == [second], "the next address", timeout_s=10)
