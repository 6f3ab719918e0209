"""The adapter as a whole: inside an event loop, when it is closed, and when its socket fails."""

import asyncio
import errno
import os
import struct
import subprocess
from ipaddress import IPv4Address, IPv6Address

import pytest

from odm_agent.core.actions import (
    AddAddress,
    AddRoute,
    AddRule,
    KernelAction,
    RemoveAddress,
    RemoveRoute,
    RemoveRule,
)
from odm_agent.core.errors import KernelError
from odm_agent.core.host import Address, Route, Rule
from odm_agent.core.model import Family
from odm_agent.kernel import addresses, rtnetlink
from tests.kernel.netlink.conftest import PROTOCOL
from tests.lab.kernel import LabKernel
from tests.lab.netns import NetNs

ADDRESS = Address(IPv6Address("2001:db8:f::1"), 128, "lo")
ROUTE = Route(865301, Family.IPV6, None, interface="w0", gateway=IPv6Address("fe80::1"))
RULE = Rule(Family.IPV6, 8655, 865301, mark=0x01000000, mask=0xFF000000)


def test_it_works_inside_a_running_event_loop_and_leaves_that_alone(host: NetNs) -> None:
    """As the agent calls it: made before the loop or in it, called in callbacks and tasks."""

    async def lifetime(kernel: LabKernel) -> None:
        loop = asyncio.get_running_loop()
        added: list[KernelAction] = [AddAddress(ADDRESS), AddRoute(ROUTE), AddRule(RULE)]
        for action in added:
            kernel.apply(action)
        state = kernel.read()
        assert {local.address for local in state.addresses if local.ours} == {ADDRESS.address}
        assert state.routes == {ROUTE} and state.rules == {RULE}
        for action in (RemoveRule(RULE), RemoveRoute(ROUTE), RemoveAddress(ADDRESS)):
            loop.call_soon(kernel.apply, action)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        state = kernel.read()
        assert not any(local.ours for local in state.addresses)
        assert not state.routes and not state.rules
        assert asyncio.get_running_loop() is loop

    async def own() -> None:
        with LabKernel(PROTOCOL) as kernel:
            await lifetime(kernel)

    host.call(lambda: asyncio.run(own()))
    with host.call(LabKernel, PROTOCOL) as kernel:
        asyncio.run(lifetime(kernel))


def test_closing_ends_all_descriptors(host: NetNs) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for _ in range(3):
        kernel = host.call(LabKernel, PROTOCOL)
        kernel.read()
        assert descriptors() > before
        kernel.close()
        kernel.close()
        assert descriptors() == before


def test_after_an_exchange_that_failed_the_next_one_begins_anew(
    kernel: LabKernel, host: NetNs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the kernel is not done with answering: it refuses to begin another dump then."""
    host.batch("".join(f"addr add 198.18.{n >> 8}.{n & 255}/32 dev lo\n" for n in range(2000)))

    def overrun(body: bytes, *_: object) -> None:
        raise OSError(errno.ENOBUFS, "overrun")

    with monkeypatch.context() as patch:
        patch.setattr(rtnetlink, "_refusal", overrun)
        with pytest.raises(KernelError, match=r"reading .*ENOBUFS: overrun\. .*tried again"):
            kernel.read_addresses({})
    assert "w0" in kernel.read().links
    kernel.apply(AddAddress(ADDRESS))
    assert str(ADDRESS.address) in host.ip("address", "show", "dev", "lo")


def test_what_pyroute2_stumbles_over_is_an_error_of_ours(
    kernel: LabKernel, host: NetNs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object) -> None:
        raise struct.error("unpack requires a buffer")

    with monkeypatch.context() as patch:
        patch.setattr(addresses, "read", stumble)
        with pytest.raises(KernelError, match=r"EPROTO: error\('unpack requires a buffer'\)"):
            kernel.read()
    assert "w0" in kernel.read().links


def test_an_interface_may_be_renamed_or_replaced(kernel: LabKernel, host: NetNs) -> None:
    kernel.read()
    host.batch("link set w1 down\nlink set w1 name w9\nlink add w1 type veth peer x1\n")
    added = Address(IPv4Address("192.0.2.99"), 32, "w1")
    kernel.apply(AddAddress(added))
    assert "192.0.2.99" in host.ip("address", "show", "dev", "w1")


def test_an_interface_may_be_called_what_is_no_utf8(kernel: LabKernel, host: NetNs) -> None:
    command = [b"ip", b"link", b"add", b"\xff\x1b", b"type", b"veth", b"peer", b"name", b"x1"]
    host.call(subprocess.run, command, check=True)
    assert {"w0", "\udcff\x1b", "x1"} <= set(kernel.read().links)
