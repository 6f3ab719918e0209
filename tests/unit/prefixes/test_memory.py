"""An address that a number of a pool once had stays its own, whatever happens to the prefix."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odm_agent.core.model import AddressType, IPAddress, IPNetwork, Placement, TypedPrefix
from odm_agent.prefixes.memory import Given, Memory
from odm_agent.prefixes.table import PrefixTable

NET6, NET4 = IPv6Network("2001:db8:1:20::/64"), IPv4Network("192.0.2.16/28")


def _prefix(network: IPNetwork, pool: int = 3) -> TypedPrefix:
    return TypedPrefix(
        *(1, "home", AddressType.FIXED, network, "eth0", None, Placement.DELEGATED, (network,)),
        pool=pool,
    )


def _restarted(table: PrefixTable) -> PrefixTable:
    """What a new agent knows: the secret, and what was written down."""
    return PrefixTable(table.secret, memory=table.remembered())


def _widened(prefix: TypedPrefix) -> TypedPrefix:
    wider = prefix.network.supernet(4)
    return replace(prefix, network=wider, spans=(wider,))


_EVENTS: dict[str, Callable[[TypedPrefix], TypedPrefix]] = {
    "interface": lambda p: replace(p, interface="wlan0"),
    "entry renamed": lambda p: replace(p, name="house", id=7),
    "order": lambda p: replace(p, order=9),
    "preference": lambda p: replace(p, preference=9),
    "type": lambda p: replace(p, type=AddressType.SESSION_LASTING),
    "placement": lambda p: replace(p, placement=Placement.ON_LINK),
    "gateway": lambda p: replace(p, gateway=IPv6Address("fe80::2")),
    "made in another way": lambda p: replace(p, net_iface="eth0"),
    "pool grown": lambda p: replace(p, pool=9),
    "prefix widened": _widened,
}


@pytest.mark.parametrize("network", [NET6, NET4], ids=["ipv6", "ipv4"])
@pytest.mark.parametrize("event", _EVENTS)
@pytest.mark.parametrize("restart", [False, True], ids=["reload", "restart"])
def test_no_change_of_the_entry_changes_an_address(
    network: IPNetwork, event: str, restart: bool
) -> None:
    prefix = _prefix(network)
    table = PrefixTable(b"secret").with_only([prefix])
    before = table.addresses_of(prefix.id)
    changed = _EVENTS[event](prefix)
    after = (_restarted(table) if restart else table).with_only([changed])
    assert after.addresses_of(changed.id)[: len(before)] == before


@pytest.mark.parametrize("network", [NET6, NET4], ids=["ipv6", "ipv4"])
def test_addresses_come_back_with_the_pool_and_with_the_entry(network: IPNetwork) -> None:
    table = PrefixTable(b"secret").with_only([_prefix(network)])
    before = table.addresses_of(1)
    smaller = table.with_only([_prefix(network, pool=1)])
    assert smaller.addresses_of(1) == before[:1]
    assert _restarted(smaller).with_only([_prefix(network)]).addresses_of(1) == before
    assert _restarted(table.with_only([])).with_only([_prefix(network)]).addresses_of(1) == before


def test_a_range_that_grows_at_its_front_keeps_what_there_was() -> None:
    def ranged(first: str) -> TypedPrefix:
        return replace(_prefix(NET4), range=(IPv4Address(first), IPv4Address("192.0.2.30")))

    table = PrefixTable(b"secret").with_only([ranged("192.0.2.24")])
    before = table.addresses_of(1)
    assert table.with_only([ranged("192.0.2.20")]).addresses_of(1) == before
    narrower = table.with_only([ranged("192.0.2.25")]).addresses_of(1)
    assert narrower[1:] == before[1:]
    assert narrower[0] not in before


@pytest.mark.parametrize("network", [NET6, NET4], ids=["ipv6", "ipv4"])
def test_a_conflict_is_known_after_a_restart_and_moves_nobody_else(network: IPNetwork) -> None:
    table = PrefixTable(b"secret").with_only([_prefix(network)])
    first, *others = table.addresses_of(1)
    moved = table.with_conflict(first)
    again = _restarted(moved).with_only([_prefix(network)])
    assert again.addresses_of(1) == moved.addresses_of(1)
    assert again.addresses_of(1)[0] != first
    assert list(again.addresses_of(1)[1:]) == others


@given(
    network=st.sampled_from(
        [NET4, NET6, IPv6Network("2001:db8::/123"), IPv4Network("10.0.0.0/29")]
    ),
    events=st.lists(st.tuples(st.sampled_from(["pool", "conflict", "restart"]), st.integers(0, 7))),
)
def test_only_a_conflict_with_it_changes_an_address(
    network: IPNetwork, events: list[tuple[str, int]]
) -> None:
    table = PrefixTable(b"secret").with_only([_prefix(network)])
    had: dict[int, IPAddress] = {}
    for event, number in events:
        row = table.by_id(1)
        assert row is not None
        if event == "pool":
            table = table.with_only([_prefix(network, pool=number + 1)])
        elif event == "restart":
            table = _restarted(table).with_only([row.prefix])
        elif number in had and had[number] in row.addresses:
            table = table.with_conflict(had.pop(number))
        row = table.by_id(1)
        assert row is not None
        assert len(set(row.addresses)) == len(row.addresses)
        now = {n: a for n, a in row.known.kept.items() if n < row.prefix.pool}
        assert all(now.get(n, a) == a for n, a in had.items())
        had |= now


def test_of_two_addresses_of_one_number_the_lower_is_kept() -> None:
    """Two prefixes became one."""
    memory = Memory({NET6[5]: Given(0), NET6[3]: Given(0), NET6[9]: Given(1)})
    table = PrefixTable(b"secret", memory=memory).with_only([_prefix(NET6, pool=2)])
    assert table.addresses_of(1) == (NET6[3], NET6[9])
    assert table.remembered() == memory, "nothing is forgotten"
