"""The host as a router, and the way to its gateway."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.rfc8653.bypass.technique import Stage


@contextmanager
def forwarding(stage: Stage) -> Iterator[None]:
    """The host as a router, as container engines make it."""
    host = stage.world.site.host
    with ExitStack() as stack:
        for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            stack.callback(host.sysctl, name, "0")
            host.sysctl(name, "1")
        yield


def gateway_mac(stage: Stage) -> bytes:
    """The link address of gateway A."""
    shown = stage.world.site.a.ip("-o", "link", "show", "dev", "to-host")
    return bytes.fromhex(shown.partition("link/ether ")[2].split()[0].replace(":", ""))
