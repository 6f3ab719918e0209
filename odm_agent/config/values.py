"""Values of a checked configuration as those of the core: addresses, networks, numbers."""

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Network,
    ip_address,
    ip_network,
    summarize_address_range,
)

from odm_agent.config.schema import AgentConfig, PrefixConfig
from odm_agent.core.model import IPAddress, IPNetwork
from odm_agent.prefixes.numbers import Numbers

Range = tuple[IPv4Address, IPv4Address]


def network_of(prefix: PrefixConfig) -> IPNetwork:
    """The prefix; ValueError says what is wrong with it (host bits too)."""
    network = ip_network(prefix.prefix)
    if "%" in prefix.prefix:  # ipaddress takes a zone for a part of the address
        raise ValueError(f"{prefix.prefix!r} has a zone; `interface` says where it is")
    return network


def gateway_of(prefix: PrefixConfig) -> IPAddress | None:
    """The next hop, if there is one; ValueError if it is no address."""
    if prefix.gateway is not None and "%" in prefix.gateway:
        raise ValueError(f"{prefix.gateway!r} has a zone; `interface` says where it is")
    return None if prefix.gateway is None else ip_address(prefix.gateway)


def range_of(prefix: PrefixConfig) -> Range | None:
    """The range, if there is one; ValueError if it is not "FIRST-LAST"."""
    if prefix.range is None:
        return None
    first, dash, last = prefix.range.partition("-")
    if not dash:
        raise ValueError(f"{prefix.range!r} is not of the form FIRST-LAST")
    low, high = IPv4Address(first.strip()), IPv4Address(last.strip())
    if low > high:
        raise ValueError(f"{low} comes after {high}")
    return low, high


def spans_of(prefix: PrefixConfig) -> tuple[IPNetwork, ...]:
    """The networks that are typed as a whole: the prefix, or an on-link IPv4 range."""
    network, range_ = network_of(prefix), range_of(prefix)
    if isinstance(network, IPv4Network) and range_ and prefix.placement == "on-link":
        return tuple(summarize_address_range(*range_))
    return (network,)


def numbers_of(agent: AgentConfig) -> Numbers:
    """What the agent uses in the kernel, as `[agent]` says."""
    return Numbers(agent.table_base, agent.rule_priority, agent.mark_mask, agent.protocol)


def room(prefix: PrefixConfig, network: IPNetwork) -> int:
    """How many addresses the prefix can give to this host."""
    if isinstance(network, IPv6Network):
        # Not the subnet-router anycast address, nor the 128 reserved ones (RFC 2526).
        reserved = 0 if network.prefixlen >= 127 else 1 if network.prefixlen >= 120 else 129
        return network.num_addresses - reserved
    first, last = range_of(prefix) or (network.network_address, network.broadcast_address)
    return int(last) - int(first) + 1 - sum(first <= edge <= last for edge in edges_of(network))


def edges_of(network: IPNetwork) -> frozenset[IPv4Address]:
    """The addresses of an IPv4 network that no host of it has: its own, and the broadcast one."""
    if isinstance(network, IPv6Network) or network.prefixlen >= 31:  # RFC 3021
        return frozenset()
    return frozenset((network.network_address, network.broadcast_address))
