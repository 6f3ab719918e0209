"""Packets that the host passes on, or that never meet its IP layer: no socket of ours sent them."""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.lab.client import outcome
from tests.lab.host import LINKS
from tests.lab.netns import NetNs, address, veth
from tests.lab.place import Place
from tests.rfc8653.bypass.forward import forwarding, gateway_mac
from tests.rfc8653.bypass.packets import datagram
from tests.rfc8653.bypass.technique import (
    DATA,
    FOUR,
    OPEN,
    SIX,
    Expect,
    Form,
    Result,
    Stage,
    Technique,
)

GROUP: Final = "Packets of others that the host passes on"

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_NEAR: Final = {Form.IPV6: "2001:db8:cc::1", Form.IPV4: "203.0.113.33"}


@contextmanager
def _container(stage: Stage, source: str) -> Iterator[Place]:
    """A namespace behind the host whose own address is `source`, in the class that tries."""
    host, near = stage.world.site.host, _NEAR[stage.form]
    with forwarding(stage), NetNs("inner") as inner:
        veth(host, "box", inner, "out")
        try:
            address(host, "box", f"{near}/{stage.bits}")
            address(inner, "out", f"{source}/{stage.bits}")
            inner.ip("route", "add", near, "dev", "out")
            if source != stage.plain:
                host.ip("route", "add", f"{source}/{stage.bits}", "dev", "box")
            inner.ip("route", "add", "default", "via", near, "dev", "out", "onlink")
            yield Place(stage.place.cgroup, inner)
        finally:
            host.ip("link", "del", "box")


def _call(stage: Stage) -> None:
    """Two datagrams: the second is told what became of the first."""
    with stage.udp() as sock:
        sock.connect(stage.to)
        sock.send(DATA)
        try:
            sock.recv(64)
        except TimeoutError:
            return


def _spoofs_unused(stage: Stage) -> str:
    with _container(stage, stage.unused) as place:
        return place.do(lambda: outcome(lambda: _call(stage)))


def _spoofs_host(stage: Stage) -> str:
    with _container(stage, stage.plain) as place:
        return place.do(lambda: outcome(lambda: _call(stage)))


def _tun(stage: Stage) -> str:
    """Whoever holds a TUN device plays a host behind this one."""
    host = stage.world.site.host
    packet = datagram(stage.unused, stage.to[0])

    def inject() -> None:
        device = os.open("/dev/net/tun", os.O_RDWR)
        request = struct.pack("16sH22x", b"tap-in", _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(device, _TUNSETIFF, request)
        os.write(device, packet)

    with forwarding(stage):
        host.ip("tuntap", "add", "dev", "tap-in", "mode", "tun")
        try:
            host.ip("link", "set", "tap-in", "up")
            host.ip("route", "add", f"{stage.unused}/{stage.bits}", "dev", "tap-in")
            return stage.do(inject)
        finally:
            host.ip("link", "del", "tap-in")


def _macvlan(stage: Stage) -> str:
    """A second network card on the same link: its packets never meet the host's IP layer."""
    host, gateway = stage.world.site.host, str(LINKS["A", stage.form.family][1])
    mac = gateway_mac(stage).hex(":")
    with NetNs("inner") as inner:
        host.ip("link", "add", "link", "w0", "name", "mv", "type", "macvlan", "mode", "bridge")
        try:
            host.ip("link", "set", "mv", "netns", inner.name)
            inner.ip("link", "set", "mv", "up")
            address(inner, "mv", f"{stage.unused}/{stage.bits}")
            inner.ip("neighbour", "add", gateway, "lladdr", mac, "dev", "mv")
            inner.ip("route", "add", "default", "via", gateway, "dev", "mv", "onlink")
            place = Place(stage.place.cgroup, inner)
            return place.do(lambda: outcome(lambda: _call(stage)))
        finally:
            inner.ip("link", "del", "mv")


def _tunnel(stage: Stage) -> str:
    """A tunnel whose outer source is the typed address, made by the class itself."""
    host = stage.world.site.host
    make = ("ip", "link", "add", "vx", "type", "vxlan", "id", "7", "dstport", "4789")
    done = stage.place.run([*make, "local", stage.plain, "remote", stage.to[0], "dev", "w0"])
    assert not done.returncode, done.stderr
    try:
        done = stage.place.run(["ip", "link", "set", "vx", "up"])
        assert not done.returncode, done.stderr
        host.ip("neighbour", "add", "203.0.113.41", "lladdr", "02:00:00:00:00:01", "dev", "vx")
        host.ip("route", "add", "203.0.113.41/32", "dev", "vx")

        def through() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(DATA, ("203.0.113.41", 9))

        return stage.do(through)
    finally:
        host.ip("link", "del", "vx")


def _prohibited() -> Expect | dict[Form, Expect]:
    rule = "a routing rule"
    return {
        Form.IPV6: Expect(Result.KERNEL, told="EACCES", by=rule),
        Form.IPV4: Expect(Result.KERNEL, told="EHOSTUNREACH", by=rule),
    }


#: Where the answer goes to the host itself, or to nobody.
_DROPPED: Final = Expect(Result.NOTHING, by="a routing rule")
_ADMIN: Final = (
    "Who holds CAP_NET_ADMIN over the host's network decides what its packets look like: tunnels, "
    "NAT, macvlan, bridges, programs at tc. {} Give it to no application."
)
_NOBODYS: Final = "no class has a part in it"
_ITSELF: Final = "no class has a part in it: the attempt itself shows that it works"

TECHNIQUES: Final = (
    Technique(
        "container",
        "a container (network namespace behind the host) whose own address is of the prefix",
        _spoofs_unused,
        _prohibited(),
        needs="root",
        no_control=_NOBODYS,
    ),
    Technique(
        "container-host",
        "a container whose own address is the host's typed one",
        _spoofs_host,
        _DROPPED,
        SIX,
        needs="root",
        no_control=_NOBODYS,
    ),
    Technique(
        "container-host4",
        "a container whose own address is the host's typed one",
        _spoofs_host,
        Expect(Result.NOTHING, by="the kernel (martian source)"),
        FOUR,
        needs="root",
        no_control=_NOBODYS,
    ),
    Technique(
        "tun",
        "a TUN device, into which a program writes packets that the host forwards",
        _tun,
        _DROPPED,
        needs="root",
        no_control=_NOBODYS,
    ),
    Technique(
        "macvlan",
        "a container with a macvlan on the uplink",
        _macvlan,
        OPEN,
        needs="root",
        no_control=_ITSELF,
        remedy=_ADMIN.format(
            "Its packets go past the host's IP layer; the gateway can check them."
        ),
    ),
    Technique(
        "tunnel",
        "a tunnel (VXLAN) with the typed address as its outer source",
        _tunnel,
        OPEN,
        needs="root",
        no_control=_ITSELF,
        remedy=_ADMIN.format("The outer packet is the kernel's; no program of ours runs for it."),
    ),
)
