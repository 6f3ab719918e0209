"""L2: lifetimes in bytes, counted in the kernel; tcpdump is the witness of what was sent."""

import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab.agent import LabClass, Settings
from tests.lab.cases import each_kind
from tests.lab.client import PORT, Kind, call, exchange, outcome
from tests.lab.host import CORRESPONDENT, GRACEFUL, NONPERSISTENT, SESSION, prefix_of, type_of
from tests.lab.place import Ready
from tests.lab.process import wait_until
from tests.lab.tcpdump import witness
from tests.lab.world import STANDARD, World

_SOFT: Final = 200_000
_HARD: Final = 150_000
_FAMILIES: Final = (Family.IPV6, Family.IPV4)
_SETTINGS: Final[Settings] = replace(
    STANDARD,
    classes={
        "session": LabClass(allow=(SESSION,), default=SESSION),
        "brief": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT, on_failure="closed"),
        "graceful": LabClass(allow=(GRACEFUL,), default=GRACEFUL),
    },
    extra={
        # Counted, and never reached.
        **{each: {"budget": "10GB"} for each in ("session6", "session4")},
        **{each: {"budget": "200kB", "rotate": "never"} for each in ("brief6", "brief4")},
        **{
            each: {"budget": "150kB", "hard": True, "rotate": "never"}
            for each in ("graceful6", "graceful4")
        },
    },
)
_UDP_SEGMENT: Final = 103
_IPERF: Final = 5201


@pytest.fixture(scope="module")
def budgeted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose prefixes have budgets; its links carry what a real one would."""
    with World(tmp_path_factory.mktemp("budgeted"), _SETTINGS) as made:
        for interface in ("w0", "w1"):  # segments are cut before the link, not behind it
            made.site.host.run(
                ["ethtool", "-K", interface, "tso", "off", "tx-udp-segmentation", "off"]
            )
        yield made


def _leases(world: World, type: AddressType, family: Family) -> dict[str, dict[str, Any]]:
    """What the agent tells of the addresses of a type, by address."""
    name = prefix_of(type, family).name
    told = world.agent.read("lifetimes")
    return {each["address"]: each for each in told if each["prefix"] == name}


def _current(world: World, type: AddressType, family: Family) -> dict[str, Any]:
    [found] = [x for x in _leases(world, type, family).values() if x["phase"] == "current"]
    return found


@pytest.fixture(scope="module")
def iperf(budgeted: World) -> Iterator[list[str]]:
    """The command of a client for a server at the correspondent."""
    netns = budgeted.site.c
    command = ["iperf3", "--server", f"--port={_IPERF}"]
    server = subprocess.Popen(
        netns.command(command), stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(lambda: bool(netns.run(["ss", "-Hltn", f"sport = :{_IPERF}"])), "it listens")
        yield ["iperf3", f"--port={_IPERF}", "--client"]
    finally:
        server.terminate()
        server.wait(10)


def _drain(sock: socket.socket, count: int) -> None:
    while count > 0 and (data := sock.recv(1 << 18)):
        count -= len(data)


def _datagrams(kind: Kind, count: int, size: int, segment: int = 0) -> None:
    with kind.open() as sock:
        if segment:
            sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, segment)
        sock.connect((kind.spell(CORRESPONDENT[kind.family]), PORT + 90))  # nobody there
        for _ in range(count):
            try:
                sock.send(bytes(size))
            except ConnectionRefusedError:
                sock.send(bytes(size))


@pytest.mark.parametrize("how", ["one stream", "8 streams", "small datagrams", "UDP_SEGMENT"])
@pytest.mark.parametrize("family", _FAMILIES, ids=lambda f: f.name)
def test_L2_what_is_counted_is_what_is_on_the_wire(
    budgeted: World, iperf: list[str], how: str, family: Family, tmp_path: Path
) -> None:
    udp = Kind.UDP6 if family is Family.IPV6 else Kind.UDP4
    place, source = budgeted.place("session"), budgeted.address(SESSION, family)
    before = _current(budgeted, SESSION, family)
    with witness(budgeted.site.host, prefix_of(SESSION, family).interface, tmp_path) as seen:
        match how:
            case "one stream" | "8 streams":
                # iperf3 ends when all is written, and what its sockets have not sent is lost.
                many = ["-n", "200M", "-P", "8"] if how == "8 streams" else ["-n", "105M"]
                told = place.run([*iperf, CORRESPONDENT[family], *many], timeout_s=60)
                assert told.returncode == 0, told.stdout
                least = 100_000_000
            case "small datagrams":
                place.do(lambda: _datagrams(udp, 10_000, 20))
                least = 480_000
            case _:
                place.do(lambda: _datagrams(udp, 100, 60_000, 1200))
                least = 6_000_000
        wait_until(lambda: _nothing_unsent(budgeted, source), "all is acknowledged")
        bytes_, packets = seen.count()
    after = _current(budgeted, SESSION, family)
    assert after["address"] == before["address"] == source
    wire, wire_packets = bytes_[ip_address(source)], packets[ip_address(source)]
    assert after["used_bytes"] - before["used_bytes"] == wire
    assert wire >= least
    # What is cut into segments behind us is one packet to the programs.
    assert 0 < after["used_packets"] - before["used_packets"] <= wire_packets


def _nothing_unsent(world: World, source: str) -> bool:
    """No connection from there has anything left to send or to end."""
    listed = world.site.host.run(["ss", "-Htan", "src", f"[{source}]" if ":" in source else source])
    return all(line.split()[0] == "TIME-WAIT" for line in listed.splitlines())


@each_kind(Kind.TCP6, Kind.TCP4)
def test_L2_L3_the_packet_that_reaches_the_budget_ends_that_the_address_is_given(
    budgeted: World, kind: Kind
) -> None:
    """The connection that has it goes on; all later ones come from the next address."""
    place = budgeted.place("brief")

    def client(ready: Ready) -> None:
        with kind.open() as old:
            ready(exchange(old, kind).seen)
            _exchange(old, int(0.85 * _SOFT))
            ready("warned")
            time.sleep(2)
            _exchange(old, int(0.2 * _SOFT))
            later = [call(kind).seen for _ in range(20)]
            old.sendall(b"still here")
            ready((later, bool(old.recv(100))))

    with place.conversation(client) as talk:
        had = talk.hear()
        talk.hear()
        _await_spare(budgeted, kind.family)
        later, goes_on = talk.hear()
    assert had not in later
    assert goes_on
    assert {type_of(each) for each in (had, *later)} == {NONPERSISTENT}


def _await_spare(world: World, family: Family) -> None:
    wait_until(
        lambda: any(
            each["phase"] == "spare" for each in _leases(world, NONPERSISTENT, family).values()
        ),
        "a spare address",
    )


def _exchange(sock: socket.socket, count: int) -> None:
    """Send so many bytes, and hear them again, a little at a time."""
    while count > 0:
        sock.sendall(bytes(min(count, 10_000)))
        _drain(sock, min(count, 10_000))
        count -= 10_000


@each_kind(Kind.TCP6, Kind.TCP4)
def test_L2_after_a_hard_budget_not_one_packet_leaves(
    budgeted: World, kind: Kind, tmp_path: Path
) -> None:
    place = budgeted.place("graceful")

    def client() -> tuple[str, str]:
        with kind.open() as sock:
            had = exchange(sock, kind).seen
            sock.settimeout(1)

            def upload() -> None:
                for _ in range(100):
                    sock.sendall(bytes(10_000))
                    _drain(sock, 10_000)

            return had, outcome(upload)

    with witness(budgeted.site.host, prefix_of(GRACEFUL, kind.family).interface, tmp_path) as seen:
        had, told = place.do(client)
        bytes_, _ = seen.count()
    assert told == "timeout"
    sent = bytes_[ip_address(had)]
    assert _HARD <= sent < _HARD + 65_575  # the packet that reaches it is the last one


@each_kind(Kind.TCP6, Kind.TCP4)
def test_L2_L3_a_budget_ends_also_while_the_agent_is_dead(budgeted: World, kind: Kind) -> None:
    """The spare that the warning had made steps in; without one there is no address."""
    place = budgeted.place("brief")

    def spend(to: float) -> str:
        with kind.open() as sock:
            had = exchange(sock, kind).seen
            _exchange(sock, int(to * _SOFT))
            return had

    had = place.do(lambda: spend(0.85))
    _await_spare(budgeted, kind.family)
    budgeted.agent.sigkill()
    try:
        assert place.do(lambda: spend(0.2)) == had
        second = place.do(lambda: call(kind).seen)
        assert second != had and type_of(second) is NONPERSISTENT
        assert place.do(lambda: spend(1.1)) == second
        assert place.do(lambda: outcome(lambda: call(kind))) == "EADDRNOTAVAIL"
    finally:
        budgeted.agent.start()
    wait_until(
        lambda: place.do(lambda: outcome(lambda: call(kind))) == "ok", "another address is ready"
    )
    assert place.do(lambda: call(kind).seen) not in {had, second}
