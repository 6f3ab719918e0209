"""Addresses: what we add is there as `ip` shows it, and what others have is read back."""

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest

from odm_agent.core.actions import AddAddress, RemoveAddress
from odm_agent.core.errors import KernelError
from odm_agent.core.host import Address, LocalAddress
from tests.kernel.netlink.conftest import PROTOCOL
from tests.lab.kernel import LabKernel
from tests.lab.netns import NetNs, veth
from tests.lab.process import wait_until

Show = Callable[..., Any]
Tags = Callable[[], dict[str, int | None]]

DELEGATED6 = Address(IPv6Address("2001:db8:f::1"), 128, "lo")
DELEGATED4 = Address(IPv4Address("198.51.100.1"), 32, "lo")
ON_LINK6 = Address(IPv6Address("2001:db8:1::ff"), 128, "w0", deprecated=True, dad=True)
ON_LINK4 = Address(IPv4Address("192.0.2.200"), 32, "w0")
ALL = [DELEGATED6, DELEGATED4, ON_LINK6, ON_LINK4]


def find(kernel: LabKernel, address: Address) -> LocalAddress:
    (found,) = (
        local
        for local in kernel.read().addresses
        if (local.address, local.interface) == (address.address, address.interface)
    )
    return found


def entries(shown: Show, address: Address) -> list[dict[str, Any]]:
    """What `ip` says of an address."""
    return [
        info
        for link in shown("address", "show", "dev", address.interface)
        for info in link.get("addr_info", [])
        if info.get("local") == str(address.address)
    ]


@pytest.mark.parametrize("wanted", ALL, ids=lambda each: str(each.address))
def test_an_added_address_is_there_tagged_and_of_the_wanted_length(
    kernel: LabKernel, shown: Show, tags: Tags, wanted: Address
) -> None:
    kernel.apply(AddAddress(wanted))
    (entry,) = entries(shown, wanted)
    assert entry["prefixlen"] == wanted.prefix_length
    assert tags()[str(wanted.address)] == PROTOCOL
    assert entry["noprefixroute"] is True
    assert not entry.get("nodad"), "for then it seems ready before the kernel has its route"
    assert entry["preferred_life_time"] == (0 if wanted.deprecated else 4294967295)
    assert entry["valid_life_time"] == 4294967295
    assert find(kernel, wanted).ours
    assert find(kernel, wanted).deprecated is wanted.deprecated


@pytest.mark.parametrize("wanted", ALL, ids=lambda each: str(each.address))
def test_adding_and_removing_twice_is_the_same_as_once(
    kernel: LabKernel, shown: Show, wanted: Address
) -> None:
    kernel.apply(AddAddress(wanted))
    before = kernel.read()
    kernel.apply(AddAddress(wanted))
    assert {each.address for each in kernel.read().addresses} == {
        each.address for each in before.addresses
    }
    kernel.apply(RemoveAddress(wanted))
    assert entries(shown, wanted) == []
    kernel.apply(RemoveAddress(wanted))


def test_an_address_of_ours_is_corrected(kernel: LabKernel, shown: Show, tags: Tags) -> None:
    preferred = Address(ON_LINK6.address, 128, "w0")
    kernel.apply(AddAddress(preferred))
    kernel.apply(AddAddress(ON_LINK6))
    (entry,) = entries(shown, ON_LINK6)
    assert entry["deprecated"] is True
    assert tags()[str(ON_LINK6.address)] == PROTOCOL
    kernel.apply(AddAddress(Address(ON_LINK6.address, 64, "w0")))
    (entry,) = entries(shown, ON_LINK6)
    assert entry["prefixlen"] == 64 and "deprecated" not in entry


def test_an_address_of_somebody_else_keeps_its_owner(
    kernel: LabKernel, host: NetNs, tags: Tags
) -> None:
    """Though it isn't as we want it: another length, and not deprecated."""
    host.ip("address", "add", f"{ON_LINK6.address}/64", "dev", "w0", "nodad")
    kernel.apply(AddAddress(ON_LINK6))
    assert tags()[str(ON_LINK6.address)] is None
    found = find(kernel, ON_LINK6)
    assert (found.ours, found.prefix_length, found.deprecated) == (False, 64, False)


def test_an_interface_that_is_not_there(kernel: LabKernel) -> None:
    nowhere = Address(DELEGATED6.address, 128, "nowhere")
    with pytest.raises(KernelError, match=r"adding address 2001:db8:f::1/128 on nowhere: .*ENODEV"):
        kernel.apply(AddAddress(nowhere))
    kernel.apply(RemoveAddress(nowhere))


def test_links_are_up_only_with_carrier(kernel: LabKernel, host: NetNs) -> None:
    assert {name: link.up for name, link in kernel.read().links.items()} == {
        "lo": True,
        "w0": True,
        "w1": True,
    }
    host.ip("link", "set", "w1", "down")
    assert kernel.read().links["w1"].up is False
    host.ip("link", "add", "d0", "type", "veth", "peer", "name", "d1")
    host.ip("link", "set", "d0", "up")  # its peer is down: no carrier
    assert kernel.read().links["d0"].up is False


def test_foreign_addresses_are_read_with_their_broadcast(kernel: LabKernel, host: NetNs) -> None:
    host.ip("address", "add", "203.0.113.5/26", "broadcast", "203.0.113.62", "dev", "w1")
    host.ip("address", "add", "10.9.0.1", "peer", "10.9.0.2", "dev", "w1")
    found = {local.address: local for local in kernel.read().addresses}
    assert found[ip_address("192.0.2.10")].broadcasts == (IPv4Address("192.0.2.255"),)
    both = (IPv4Address("203.0.113.62"), IPv4Address("203.0.113.63"))
    assert found[ip_address("203.0.113.5")].broadcasts == both
    assert found[ip_address("10.9.0.1")].broadcasts == ()
    assert ip_address("10.9.0.2") not in found
    assert not any(local.ours for local in found.values())


def test_duplicate_address_detection_goes_from_tentative_to_ready(kernel: LabKernel) -> None:
    kernel.apply(AddAddress(ON_LINK6))
    assert find(kernel, ON_LINK6).ready is False
    wait_until(lambda: find(kernel, ON_LINK6).ready, "detection ends")
    assert find(kernel, ON_LINK6).failed is False


def test_a_duplicate_address_fails_and_is_never_ready(kernel: LabKernel, host: NetNs) -> None:
    with NetNs("other") as other:
        veth(host, "w2", other, "o0")
        other.ip("address", "add", "2001:db8:1::ff/64", "dev", "o0", "nodad")
        duplicate = Address(ON_LINK6.address, 128, "w2", deprecated=True, dad=True)
        wait_until(lambda: kernel.read().links["w2"].up, "w2 is up")
        kernel.apply(AddAddress(duplicate))
        wait_until(lambda: find(kernel, duplicate).failed, "detection fails")
        assert find(kernel, duplicate).ready is False


@pytest.mark.parametrize("destination", ["203.0.113.1", "2001:db8:c::1"])
def test_the_kernels_own_choice_never_falls_on_our_addresses(
    kernel: LabKernel, host: NetNs, destination: str
) -> None:
    """Even if ours were there first, as after a restart of the network."""
    version = ip_address(destination).version
    untyped = "192.0.2.10/24" if version == 4 else "2001:db8:1::10/64"
    kernel.apply(*[AddAddress(each) for each in ALL])
    host.ip("address", "delete", untyped, "dev", "w0")
    host.ip("address", "add", untyped, "dev", "w0", *(["nodad"] if version == 6 else []))
    # IPv4 with a gateway would prefer the gateway's network: without is the harder case.
    gateway = [] if version == 4 else ["via", "2001:db8:1::1"]
    host.ip(f"-{version}", "route", "replace", "default", *gateway, "dev", "w0")

    def chosen() -> str:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((destination, 9))
            return str(sock.getsockname()[0])

    assert host.call(chosen) == untyped.partition("/")[0]


def test_scope_host_addresses_are_bindable_and_answer_arp(kernel: LabKernel, host: NetNs) -> None:
    kernel.apply(AddAddress(ON_LINK4))

    def bound() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((str(ON_LINK4.address), 0))
            sock.connect(("192.0.2.1", 9))
            return str(sock.getsockname()[0])

    assert host.call(bound) == str(ON_LINK4.address)
    with NetNs("neighbour") as neighbour:
        veth(host, "w3", neighbour, "n0")
        host.ip("address", "add", "203.0.113.1/24", "dev", "w3")
        neighbour.ip("address", "add", "203.0.113.2/24", "dev", "n0")
        kernel.apply(AddAddress(Address(IPv4Address("203.0.113.9"), 32, "w3")))
        neighbour.run(["ping", "-c1", "-W2", "203.0.113.9"])


def test_of_a_thousand_addresses_each_is_there_in_the_end(kernel: LabKernel, tags: Tags) -> None:
    first = int(IPv6Address("2001:db8:77::1"))
    wanted = [Address(IPv6Address(first + index), 128, "lo") for index in range(1000)]
    wanted.insert(500, DELEGATED4)
    kernel.apply(AddAddress(wanted[700]))  # one is there already
    kernel.apply(*[AddAddress(each) for each in wanted])
    assert list(tags().values()).count(PROTOCOL) == 1001
    assert sum(local.ours for local in kernel.read().addresses) == 1001


def test_one_failure_in_a_batch_is_named_and_the_others_are_done(
    kernel: LabKernel, shown: Show
) -> None:
    impossible = Address(IPv6Address("ff02::1234"), 128, "lo")  # multicast
    with pytest.raises(KernelError, match="ff02::1234"):
        kernel.apply(*[AddAddress(DELEGATED6), AddAddress(impossible), AddAddress(DELEGATED4)])
    assert entries(shown, DELEGATED6) and entries(shown, DELEGATED4)
