"""A host with two uplinks (w0 up to a gateway, w1) in a namespace of its own."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyroute2.iproute import IPRoute

from tests.lab.kernel import LabKernel
from tests.lab.netns import NetNs, address, veth

PROTOCOL = 86


@pytest.fixture
def gateway() -> Iterator[NetNs]:
    with NetNs("gateway") as gateway:
        yield gateway


@pytest.fixture
def host(gateway: NetNs) -> Iterator[NetNs]:
    with NetNs("host", dad=True) as host:
        veth(host, "w0", gateway, "g0")
        veth(host, "w1", gateway, "g1")
        address(host, "w0", "192.0.2.10/24", "2001:db8:1::10/64")
        address(gateway, "g0", "192.0.2.1/24", "2001:db8:1::1/64")
        yield host


@pytest.fixture
def kernel(host: NetNs) -> Iterator[LabKernel]:
    kernel = host.call(LabKernel, PROTOCOL)
    with kernel:
        yield kernel


@pytest.fixture
def shown(host: NetNs) -> Callable[..., Any]:
    """What `ip -json ARGUMENTS` shows in the host's namespace."""

    def show(*arguments: str) -> Any:
        return json.loads(host.ip("-json", *arguments) or "[]")

    return show


@pytest.fixture
def tags(host: NetNs) -> Callable[[], dict[str, int | None]]:
    """IFA_PROTO by address as pyroute2 reads it (iproute2 6.1 doesn't show it)."""

    def read() -> dict[str, int | None]:
        with IPRoute() as route:
            return {
                each.get_attr("IFA_ADDRESS"): each.get_attr("IFA_PROTO")
                for each in route.get_addr()
            }

    return lambda: host.call(read)
