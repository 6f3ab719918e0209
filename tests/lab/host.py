"""The standard site: a host with two uplinks, their gateways A and B, and a correspondent C.

        w0 ── A ──┐        A forwards only what comes from its own prefixes, B likewise; C knows
  host            ├── C    each typed prefix by its own gateway only. So a packet that leaves by
        w1 ── B ──┘        the wrong gateway is never answered, and the captures show it.

The host's ordinary (untyped) address and default route are on w0; w1 has an untyped address too.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from types import TracebackType
from typing import Final, Self

from odm_agent.core.model import AddressType, Family, IPAddress, IPNetwork, Placement
from tests.lab.capture import Capture
from tests.lab.netns import NetNs, address, veth
from tests.lab.peer import Peer

FIXED = AddressType.FIXED
SESSION = AddressType.SESSION_LASTING
NONPERSISTENT = AddressType.NONPERSISTENT
GRACEFUL = AddressType.GRACEFUL_REPLACEMENT

#: Longer than a TCP segment waits for its first retransmission.
_QUIET_S: Final = 0.25
_MOST_NOISE_S: Final = 5.0


@dataclass(frozen=True)
class LabPrefix:
    """A typed prefix of the site, as configured. `via` is the gateway's letter."""

    name: str
    type: AddressType
    network: IPNetwork
    placement: Placement
    via: str
    range: tuple[IPv4Address, IPv4Address] | None = None
    pool: int = 1

    @property
    def family(self) -> Family:
        """The prefix's IP version."""
        return Family.of(self.network)

    @property
    def interface(self) -> str:
        """The host's interface towards the gateway."""
        return {"A": "w0", "B": "w1"}[self.via]

    @property
    def gateway(self) -> IPAddress:
        """The gateway's address on that link."""
        return LINKS[self.via, self.family][1]

    def __contains__(self, thing: str | IPAddress) -> bool:
        """Whether an address is one of the prefix's own (of its range, if it has one)."""
        one = ip_address(thing) if isinstance(thing, str) else thing
        if self.range is not None:
            first, last = self.range
            return isinstance(one, IPv4Address) and first <= one <= last
        return one in self.network

    def unused(self) -> IPAddress:
        """An address of the prefix that nothing configures (its last but one)."""
        return self.range[1] if self.range else self.network[-2]


#: (gateway, family) -> (network, gateway's address, host's untyped address)
LINKS: Final[dict[tuple[str, Family], tuple[IPNetwork, IPAddress, IPAddress]]] = {
    ("A", Family.IPV4): (
        ip_network("192.0.2.0/26"),
        IPv4Address("192.0.2.1"),
        IPv4Address("192.0.2.10"),
    ),
    ("A", Family.IPV6): (
        ip_network("2001:db8:a::/64"),
        IPv6Address("2001:db8:a::1"),
        IPv6Address("2001:db8:a::10"),
    ),
    ("B", Family.IPV4): (
        ip_network("198.51.100.0/26"),
        IPv4Address("198.51.100.1"),
        IPv4Address("198.51.100.10"),
    ),
    ("B", Family.IPV6): (
        ip_network("2001:db8:b::/64"),
        IPv6Address("2001:db8:b::1"),
        IPv6Address("2001:db8:b::10"),
    ),
}

#: The correspondent's two addresses in each family.
CORRESPONDENT: Final = {Family.IPV4: "203.0.113.1", Family.IPV6: "2001:db8:c::1"}
CORRESPONDENT_2: Final = {Family.IPV4: "203.0.113.2", Family.IPV6: "2001:db8:c::2"}

PREFIXES: Final = (
    LabPrefix("fixed6", FIXED, ip_network("2001:db8:a1::/64"), Placement.DELEGATED, "A"),
    LabPrefix("fixed4", FIXED, ip_network("192.0.2.64/29"), Placement.DELEGATED, "A"),
    LabPrefix("session6", SESSION, ip_network("2001:db8:a2::/64"), Placement.DELEGATED, "A"),
    LabPrefix("session4", SESSION, ip_network("192.0.2.72/29"), Placement.DELEGATED, "A"),
    LabPrefix("brief6", NONPERSISTENT, ip_network("2001:db8:b3::/64"), Placement.DELEGATED, "B"),
    LabPrefix("brief4", NONPERSISTENT, ip_network("198.51.100.64/29"), Placement.DELEGATED, "B"),
    LabPrefix("graceful6", GRACEFUL, ip_network("2001:db8:b4::/64"), Placement.ON_LINK, "B"),
    LabPrefix(
        "graceful4",
        GRACEFUL,
        ip_network("198.51.100.0/26"),
        Placement.ON_LINK,
        "B",
        range=(IPv4Address("198.51.100.40"), IPv4Address("198.51.100.43")),
    ),
)

#: Networks that a gateway lets through from the host: its links' and its prefixes'.
_OWN: Final = {
    gateway: sorted(
        {str(net) for (letter, _), (net, _, _) in LINKS.items() if letter == gateway}
        | {str(each.network) for each in PREFIXES if each.via == gateway}
    )
    for gateway in "AB"
}


def prefix_of(type: AddressType, family: Family) -> LabPrefix:
    """The site's first prefix of a type and family."""
    return next(each for each in PREFIXES if (each.type, each.family) == (type, family))


def type_of(source: str | IPAddress) -> AddressType:
    """The type of an address seen by the peer; UNSPECIFIED for the host's ordinary ones."""
    return next((each.type for each in PREFIXES if source in each), AddressType.UNSPECIFIED)


def owner_of(source: IPAddress) -> str | None:
    """The letter of the gateway that a source belongs to; None for link-local and such."""
    for gateway, networks in _OWN.items():
        if any(source in ip_network(network) for network in networks):
            return gateway
    return None


class Site:
    """The four namespaces and the running correspondent."""

    def __init__(self) -> None:
        with ExitStack() as stack:
            self.host = stack.enter_context(NetNs("host"))
            self.a = stack.enter_context(NetNs("a"))
            self.b = stack.enter_context(NetNs("b"))
            self.c = stack.enter_context(NetNs("c"))
            self._wire_up()
            self.peer = stack.enter_context(
                Peer(self.c, [*CORRESPONDENT.values(), *CORRESPONDENT_2.values()])
            )
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything."""
        self._stack.close()

    def captures(self) -> "Captures":
        """Start capturing at both gateways, on their links to the host."""
        return Captures(self)

    def _wire_up(self) -> None:
        for each in (self.a, self.b, self.c):  # each refusal is answered, however many there are
            each.sysctl("net/ipv4/icmp_ratelimit", "0")
            each.sysctl("net/ipv6/icmp/ratelimit", "0")
        veth(self.host, "w0", self.a, "to-host")
        veth(self.host, "w1", self.b, "to-host")
        veth(self.a, "to-c", self.c, "to-a")
        veth(self.b, "to-c", self.c, "to-b")
        for family in Family:
            bits = 32 if family is Family.IPV4 else 128
            address(self.c, "lo", f"{CORRESPONDENT[family]}/{bits}")
            address(self.c, "lo", f"{CORRESPONDENT_2[family]}/{bits}")
        for letter, gateway, interface in (("A", self.a, "w0"), ("B", self.b, "w1")):
            for family in Family:
                network, near, far = LINKS[letter, family]
                address(gateway, "to-host", f"{near}/{network.prefixlen}")
                address(self.host, interface, f"{far}/{network.prefixlen}")
            self._forward(letter, gateway)
        for family in Family:
            self.host.ip("route", "add", "default", "via", str(LINKS["A", family][1]), "dev", "w0")

    def _forward(self, letter: str, gateway: NetNs) -> None:
        """Let a gateway forward between host and correspondent, filtering by source."""
        gateway.sysctl("net/ipv4/ip_forward", "1")
        gateway.sysctl("net/ipv6/conf/all/forwarding", "1")
        side = letter.lower()
        # Documentation prefixes only: 203.0.113.16/30 and .20/30, 2001:db8:ca::/64 and :cb::/64.
        near4, far4 = {"a": ("17", "18"), "b": ("21", "22")}[side]
        address(gateway, "to-c", f"203.0.113.{near4}/30", f"2001:db8:c{side}::1/64")
        address(self.c, f"to-{side}", f"203.0.113.{far4}/30", f"2001:db8:c{side}::2/64")
        gateway.batch(
            f"route add 203.0.113.0/28 via 203.0.113.{far4}\n"
            f"route add 2001:db8:c::/64 via 2001:db8:c{side}::2\n"
        )
        for each in PREFIXES:
            if each.via != letter:
                continue
            if each.placement is Placement.DELEGATED:
                host = LINKS[letter, each.family][2]
                gateway.ip("route", "add", str(each.network), "via", str(host))
            elif each.family is Family.IPV6:
                address(gateway, "to-host", f"{each.network[1]}/{each.network.prefixlen}")
        for network in _OWN[letter]:
            family = f"-{ip_network(network).version}"
            via = f"203.0.113.{near4}" if family == "-4" else f"2001:db8:c{side}::1"
            source = CORRESPONDENT[Family(ip_network(network).version)]
            self.c.ip(family, "route", "add", network, "via", via, "src", source)
            gateway.ip(
                *(family, "rule", "add", "priority", "100"),
                *("iif", "to-host", "from", network, "lookup", "main"),
            )
        for family in ("-4", "-6"):
            gateway.ip(family, "rule", "add", "priority", "101", "iif", "to-host", "blackhole")


class Captures:
    """Captures at both gateways at once: the witness that each source left where it belongs."""

    def __init__(self, site: Site) -> None:
        self._captures = {
            "A": Capture(site.a, "to-host"),
            "B": Capture(site.b, "to-host"),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for each in self._captures.values():
            each.close()

    def await_quiet(self) -> None:
        """Drop what sockets of a test before still send; returns when nothing came for a while."""
        until = time.monotonic() + _MOST_NOISE_S
        while time.monotonic() < until:
            time.sleep(_QUIET_S)
            if not self.both():
                return

    def sources(self, gateway: str) -> set[IPAddress]:
        """The sources of TCP and UDP packets that the host sent to a gateway since last asked."""
        return {
            packet.source
            for packet in self._captures[gateway].packets()
            if packet.protocol in ("tcp", "udp")
        }

    def both(self) -> set[IPAddress]:
        """The sources at either gateway."""
        return self.sources("A") | self.sources("B")

    def strays(self) -> list[str]:
        """Packets of any kind that reached a gateway which doesn't own their source."""
        return [
            f"{packet} at {gateway}"
            for gateway, capture in self._captures.items()
            for packet in capture.packets()
            if not packet.source.is_link_local
            and not packet.source.is_unspecified
            and owner_of(packet.source) != gateway
        ]

    def at(self, gateway: str) -> Capture:
        """The capture at one gateway."""
        return self._captures[gateway]
