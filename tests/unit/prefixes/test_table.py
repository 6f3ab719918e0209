from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

from hypothesis import given
from hypothesis import strategies as st

from odm_agent.core.model import AddressType, IPNetwork, Placement, TypedPrefix
from odm_agent.prefixes.table import PrefixTable


def prefix(
    network: IPNetwork | None = None,
    *,
    id_: int = 1,
    pool: int = 1,
    placement: Placement = Placement.DELEGATED,
    type_: AddressType = AddressType.FIXED,
    range_: tuple[IPv4Address, IPv4Address] | None = None,
) -> TypedPrefix:
    net = network or IPv6Network("2001:db8:1::/64")
    return TypedPrefix(
        id_, f"p{id_}", type_, net, "eth0", None, placement, (net,), pool, range_, order=-id_
    )


EMPTY = PrefixTable(b"secret")
V4 = IPv4Network("192.0.2.0/29")
RANGE = (IPv4Address("192.0.2.2"), IPv4Address("192.0.2.4"))


def test_the_secret_is_not_shown() -> None:
    assert "secret'" not in repr(EMPTY)


def test_prefixes_are_found_by_id_and_address() -> None:
    table = EMPTY.with_prefix(prefix()).with_prefix(prefix(V4, id_=2))
    assert [row.prefix.id for row in table] == [2, 1], "in the order of the configuration"
    assert table.by_id(2) == table.rows[0]
    assert table.by_id(3) is None
    assert table.span_of(ip_address("192.0.2.3")) == table.by_id(2)
    assert table.span_of(ip_address("192.0.3.3")) is None
    assert table.without(1).without(9).by_id(1) is None
    assert table.addresses_of(9) == ()


def test_the_longest_span_types_an_address() -> None:
    inner = prefix(IPv6Network("2001:db8:1::/80"), id_=2)
    table = EMPTY.with_prefix(prefix()).with_prefix(inner)
    row = table.span_of(ip_address("2001:db8:1::1"))
    assert row is not None and row.prefix.id == 2


def test_ipv4_addresses_are_the_first_of_the_range_without_network_and_broadcast() -> None:
    assert EMPTY.with_prefix(prefix(V4, pool=99)).addresses_of(1) == tuple(V4.hosts())
    ranged = prefix(V4, pool=2, range_=RANGE, placement=Placement.ON_LINK)
    assert EMPTY.with_prefix(ranged).addresses_of(1) == (RANGE[0], RANGE[0] + 1)
    pair = IPv4Network("192.0.2.0/31")
    assert EMPTY.with_prefix(prefix(pair, pool=2)).addresses_of(1) == tuple(pair)


def test_a_conflict_in_a_range_takes_the_next_address_until_there_is_none() -> None:
    table = EMPTY.with_prefix(prefix(V4, range_=RANGE, placement=Placement.ON_LINK))
    seen = []
    for _ in range(3):
        (address,) = table.addresses_of(1)
        seen.append(address)
        row = table.by_id(1)
        assert row is not None and row.trouble is None
        table = table.with_conflict(address)
    assert seen == [IPv4Address(f"192.0.2.{n}") for n in (2, 3, 4)]
    assert table.addresses_of(1) == ()
    row = table.by_id(1)
    assert row is not None and row.trouble is not None
    assert row.trouble.startswith("no address: ") and "192.0.2.3" in row.trouble
    again = table.with_only([row.prefix])
    assert again.addresses_of(1) == (seen[0],), "tried again, since there is no other"


def test_an_ipv6_address_is_replaced_three_times() -> None:
    """RFC 7217, section 6: IDGEN_RETRIES."""
    table = EMPTY.with_prefix(prefix(pool=2))
    first, second = table.addresses_of(1)
    for _ in range(4):
        table = table.with_conflict(table.addresses_of(1)[0])
    assert table.addresses_of(1) == (second,)
    row = table.by_id(1)
    assert row is not None and row.trouble is not None
    assert row.trouble.startswith("1 of 2 missing")
    for _ in range(4):
        table = table.with_conflict(table.addresses_of(1)[0])
    assert table.addresses_of(1) == ()
    assert first not in table.addresses_of(1)


def test_a_conflict_about_no_address_of_ours_changes_nothing() -> None:
    table = EMPTY.with_prefix(prefix())
    assert table.with_conflict(ip_address("2001:db8::1")) == table


def test_reading_the_configuration_again_keeps_what_is_known_about_addresses() -> None:
    table = EMPTY.with_prefix(prefix()).with_prefix(prefix(V4, id_=2))
    table = table.with_conflict(table.addresses_of(1)[0])
    again = table.with_only([replace(prefix(), preference=7)])
    assert again.addresses_of(1) == table.addresses_of(1)
    assert again.by_id(2) is None
    moved = table.with_only([replace(prefix(), interface="eth1")])
    assert moved.addresses_of(1) == table.addresses_of(1)


def test_only_sixteen_addresses_of_a_large_delegated_pool_are_configured() -> None:
    row = EMPTY.with_prefix(prefix(pool=17)).by_id(1)
    assert row is not None and row.any_ip and row.holder == "lo"
    assert (len(row.addresses), len(row.configured)) == (17, 16)
    row = EMPTY.with_prefix(prefix(pool=17, placement=Placement.ON_LINK)).by_id(1)
    assert row is not None and not row.any_ip and row.holder == "eth0"
    assert len(row.configured) == 17


@given(
    failures=st.lists(st.integers(0, 4), max_size=30), length=st.sampled_from([60, 64, 120, 126])
)
def test_addresses_are_distinct_inside_and_never_a_conflicting_one(
    failures: list[int], length: int
) -> None:
    network = IPv6Network(f"2001:db8::/{length}")
    table = EMPTY.with_prefix(prefix(network, pool=3))
    bad = set()
    for index in failures:
        if index < len(table.addresses_of(1)):
            bad.add(table.addresses_of(1)[index])
            table = table.with_conflict(table.addresses_of(1)[index])
    made = table.addresses_of(1)
    assert len(set(made)) == len(made) <= 3
    assert all(a in network and a not in bad for a in made)
