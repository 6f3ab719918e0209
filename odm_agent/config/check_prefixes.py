"""Whether the typed prefixes of a configuration are prefixes that can be typed."""

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final, TypeVar

import msgspec

from odm_agent.config.check_terms import check_terms
from odm_agent.config.check_wander import check_wander
from odm_agent.config.delegations import all_as_prefixes
from odm_agent.config.problems import Problem, check_name
from odm_agent.config.schema import Config, PrefixConfig
from odm_agent.config.terms import classes_of, is_by_class
from odm_agent.config.values import edges_of, gateway_of, network_of, range_of, room, spans_of
from odm_agent.core.model import TYPES, Family, IPAddress, IPNetwork

#: On-link addresses are configured one by one, and each is announced and defended on the link.
ON_LINK_POOL: Final = 256
#: Half of what the map of pools holds: while a pool changes, it is there twice.
LARGEST_POOL: Final = 32768

#: What is left alone as a destination, or is no address of a host at all.
_SPECIAL: Final[dict[str, tuple[IPNetwork, ...]]] = {
    "unspecified": (IPv4Network("0.0.0.0/8"), IPv6Network("::/128")),
    "loopback": (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")),
    "link-local": (IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10")),
    "multicast": (IPv4Network("224.0.0.0/4"), IPv6Network("ff00::/8")),
    "broadcast": (IPv4Network("255.255.255.255/32"),),
    "IPv4-mapped": (IPv6Network("::ffff:0:0/96"),),
}
#: What is special as a destination, and a next hop all the same.
_NEXT_HOPS: Final = frozenset({"link-local"})

_T = TypeVar("_T")


def check_prefixes(config: Config) -> list[Problem]:
    """All problems of `[prefixes]`, including prefixes that get in each other's way."""
    problems: list[Problem] = []
    for name, prefix in config.prefixes.items():
        problems += check_name("prefixes", name)
        problems += _prefix(("prefixes", name), prefix, classes_of(config, prefix))
    problems += _overlaps(config)
    problems += _gateways_of_our_own(config)
    problems += check_wander(config)
    bits = config.agent.mark_mask.bit_count() if config.agent.mark_mask > 0 else 0
    delegated = sum(len(each.types) for each in config.delegations.values())
    advertised = sum(each.advertised_types is not None for each in config.uplinks.values())
    uplinks = len(Family) * len(config.uplinks) + (len(TYPES) - 1) * advertised
    seats = sum(
        len(classes_of(config, each))
        for each in (*config.prefixes.values(), *all_as_prefixes(config).values())
        if is_by_class(each)
    )
    marks = len(config.prefixes) + delegated + uplinks + seats
    if marks >= 2**bits > 1:
        problems.append(
            Problem(
                ("agent", "mark_mask"),
                f"{bits} bits tell {2**bits - 1} prefixes apart, there are {marks} (an uplink has"
                " one for each IP version, and for each type that its routers name; sharing ="
                ' "class" takes one for each class); use a wider mask',
            )
        )
    return problems


def _prefix(at: tuple[str, ...], prefix: PrefixConfig, classes: Sequence[str]) -> Iterator[Problem]:
    yield from check_interface(at, prefix)
    network, problem = _try(lambda: network_of(prefix))
    if network is None:
        advice = "write it like 2001:db8:1::/64 or 192.0.2.0/24, with no bits set past its length"
        yield Problem((*at, "prefix"), f"no prefix: {problem}; {advice}")
        return
    yield from _network(at, prefix, network)
    yield from check_gateway(at, prefix, network)
    yield from check_pool(at, prefix, network, len(classes))


def can_be_interface(name: str) -> bool:
    """Whether the kernel takes such a name (dev_valid_name)."""
    odd = name in (".", "..") or any(c in "/:" or c.isspace() or not c.isprintable() for c in name)
    return not odd and 1 <= len(name.encode()) <= 15


def check_interface(at: tuple[str, ...], prefix: PrefixConfig) -> Iterator[Problem]:
    """Whether packets could leave by an entry's interface."""
    name = prefix.interface
    if not can_be_interface(name):
        yield Problem(
            (*at, "interface"),
            f"{name!r} cannot be an interface; use its name as `ip link` shows it (1 to 15 bytes)",
        )
    if name == "lo":
        yield Problem(
            (*at, "interface"),
            "packets from a prefix do not leave by lo; name the interface towards its gateway",
        )


def _network(at: tuple[str, ...], prefix: PrefixConfig, network: IPNetwork) -> Iterator[Problem]:
    if prefix.family is not None and prefix.family != f"ipv{network.version}":
        yield Problem(
            (*at, "family"),
            f"{network} is IPv{network.version}, not {prefix.family}; correct one, or leave family"
            " out",
        )
    held = [kind for kind, nets in _SPECIAL.items() if any(_meet(network, n) for n in nets)]
    if held:
        yield Problem(
            (*at, "prefix"),
            f"{network} holds {', '.join(held)} addresses, which cannot be typed; use a prefix that"
            " is routed to this host or resolved on its link",
        )


def check_gateway(
    at: tuple[str, ...], prefix: PrefixConfig, network: IPNetwork
) -> Iterator[Problem]:
    """Whether packets of an entry's prefix could go to its gateway."""
    gateway, problem = _try(lambda: gateway_of(prefix))
    where = (*at, "gateway")
    if problem:
        yield Problem(where, f"no address: {problem}; write the next hop's, or leave gateway out")
    if gateway is None:
        return
    if gateway.version != network.version:
        yield Problem(
            where, f"{gateway} is IPv{gateway.version}, {network} is not; use one of its family"
        )
    elif any(
        gateway in net for kind, nets in _SPECIAL.items() if kind not in _NEXT_HOPS for net in nets
    ):
        yield Problem(where, f"{gateway} is no next hop; use the router's own address")
    elif gateway in edges_of(network):
        yield Problem(
            where,
            f"{gateway} is the network's own address or its broadcast address; use the router's",
        )
    elif prefix.placement == "delegated" and gateway in network:
        yield Problem(
            where,
            f"{gateway} lies in {network}, all of which is delegated to this host; use the router's"
            ' address on the link, or placement = "on-link"',
        )
    elif prefix.range is not None and _holds(prefix, gateway):
        yield Problem(
            where,
            f"{gateway} lies in {prefix.range}, the addresses of this host itself; use the"
            " router's, or another range",
        )


def _holds(prefix: PrefixConfig, address: IPAddress) -> bool:
    """Whether an address is one of those that the prefix gives this host."""
    spans, _ = _try(lambda: spans_of(prefix))
    return any(each.version == address.version and address in each for each in spans or ())


def check_pool(
    at: tuple[str, ...], prefix: PrefixConfig, network: IPNetwork, classes: int
) -> Iterator[Problem]:
    """Whether an entry's prefix has as many addresses as it is to give, and how they end; so many
    classes may use its type.
    """
    on_link = prefix.placement == "on-link"
    most = ON_LINK_POOL if on_link else LARGEST_POOL
    if not 1 <= prefix.pool <= most:
        yield Problem(
            (*at, "pool"), f"{prefix.pool} is out of range; use 1 to {most} ({prefix.placement})"
        )
        return
    if is_by_class(prefix):
        if prefix.pool != 1:
            yield Problem(
                (*at, "pool"), 'each class has one address (sharing = "class"); leave the pool out'
            )
            return
        prefix = msgspec.structs.replace(prefix, pool=max(1, classes))
    if isinstance(network, IPv6Network):
        if prefix.range is not None:
            yield Problem(
                (*at, "range"), "a range is for IPv4; IPv6 addresses are made up, leave it out"
            )
    else:
        range_, problem = _try(lambda: range_of(prefix))
        if problem:
            advice = 'write it like "192.0.2.20-192.0.2.29"'
            yield Problem((*at, "range"), f"no range: {problem}; {advice}")
            return
        if range_ is None and on_link:
            yield Problem(
                at,
                f"{network} is shared with others on the link; name the addresses that are ours in"
                ' range = "FIRST-LAST"',
            )
            return
        if range_ is not None and not (range_[0] in network and range_[1] in network):
            yield Problem((*at, "range"), f"{prefix.range} is not within {network}; correct one")
            return
    what = f"the range {prefix.range}" if prefix.range else str(network)
    if is_by_class(prefix) and room(prefix, network) < prefix.pool:
        yield Problem(
            (*at, "sharing"),
            f"{classes} classes may use the type, and {what} has room for {room(prefix, network)}"
            " addresses; use a larger one, or allow the type to fewer classes",
        )
    elif room(prefix, network) < prefix.pool:
        yield Problem(
            (*at, "pool"),
            f"{what} has room for {room(prefix, network)} addresses, not for {prefix.pool}; use a"
            " smaller pool",
        )
    else:
        yield from check_terms(at, prefix, network)


def _gateways_of_our_own(config: Config) -> Iterator[Problem]:
    """Gateways that lie in another prefix whose addresses are all this host's."""
    for name, prefix in config.prefixes.items():
        gateway, _ = _try(lambda prefix=prefix: gateway_of(prefix))  # type: ignore[misc]
        for other, theirs in config.prefixes.items():
            ours = theirs.forwarded == "refuse" if theirs.placement == "delegated" else theirs.range
            if gateway is not None and other != name and ours and _holds(theirs, gateway):
                yield Problem(
                    ("prefixes", name, "gateway"),
                    f"{gateway} lies in prefix {other!r}, so it is this host's own; use the"
                    " router's address",
                )


def _overlaps(config: Config) -> Iterator[Problem]:
    seen: list[tuple[IPNetwork, str]] = []
    for name, prefix in config.prefixes.items():
        spans, _ = _try(lambda prefix=prefix: spans_of(prefix))  # type: ignore[misc]
        for span in spans or ():
            others = {
                other for each, other in seen if each.version == span.version and _meet(each, span)
            }
            for other in sorted(others):
                yield Problem(
                    ("prefixes", name, "range" if prefix.range else "prefix"),
                    f"{span} overlaps with prefix {other!r}; an address has one type, make them"
                    " disjoint",
                )
        seen += [(span, name) for span in spans or ()]


def _meet(one: IPNetwork, other: IPNetwork) -> bool:
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.overlaps(other)
    if isinstance(one, IPv6Network) and isinstance(other, IPv6Network):
        return one.overlaps(other)
    return False


def _try(make: Callable[[], _T]) -> tuple[_T | None, str | None]:
    try:
        return make(), None
    except ValueError as error:
        return None, str(error)
