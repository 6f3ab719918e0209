from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from odm_agent.config.schema import Config, PrefixConfig
from odm_agent.core.clock import Moment
from odm_agent.core.effects import Request
from odm_agent.core.events import Failed, Granted, Withdrawn
from odm_agent.core.grants import GrantKey
from odm_agent.core.lifetimes import Terms
from odm_agent.core.model import AddressType, Family, Placement, TypedPrefix
from odm_agent.sources.base import Configured
from odm_agent.sources.static import StaticSource, typed_prefixes

NOW = Moment(1.0, 1000.0)
NET = IPv6Network("2001:db8:1::/64")
PREFIX = TypedPrefix(1, "home", AddressType.FIXED, NET, "eth0", None, Placement.DELEGATED, (NET,))

HOME = PrefixConfig(
    type="fixed",
    prefix="2001:db8:1::/64",
    interface="eth0",
    gateway="fe80::1",
    placement="delegated",
    pool=4,
    preference=2,
    untyped="allow",
)
LAN = PrefixConfig(
    type="graceful-replacement",
    prefix="192.0.2.0/24",
    interface="eth1",
    placement="on-link",
    range="192.0.2.16 - 192.0.2.20",
)


def test_sections_become_typed_prefixes() -> None:
    ids = {"home": 2, "lan": 1}
    net = IPv6Network("2001:db8:1::/64")
    assert typed_prefixes(Config(prefixes={"home": HOME, "lan": LAN}), ids.__getitem__) == (
        TypedPrefix(
            id=2,
            name="home",
            type=AddressType.FIXED,
            network=net,
            interface="eth0",
            gateway=IPv6Address("fe80::1"),
            placement=Placement.DELEGATED,
            spans=(net,),
            pool=4,
            preference=2,
            untyped_allowed=True,
        ),
        TypedPrefix(
            id=1,
            name="lan",
            type=AddressType.GRACEFUL_REPLACEMENT,
            network=IPv4Network("192.0.2.0/24"),
            interface="eth1",
            gateway=None,
            placement=Placement.ON_LINK,
            # Of an IPv4 link only the range is typed, not what the neighbours use.
            spans=(IPv4Network("192.0.2.16/30"), IPv4Network("192.0.2.20/32")),
            range=(IPv4Address("192.0.2.16"), IPv4Address("192.0.2.20")),
            order=1,
            terms=Terms(rotate_s=86400, linger=3),  # renewed without being asked
        ),
    )


def _named(*names: str) -> Configured:
    return Configured(tuple(replace(PREFIX, id=n, name=name) for n, name in enumerate(names, 1)))


def test_a_configuration_is_grants_that_never_end_and_the_next_one_takes_its_place() -> None:
    source = StaticSource()
    said = source.step(_named("home", "lan"), NOW)
    assert [each.grant.prefix.name for each in said if isinstance(each, Granted)] == ["home", "lan"]
    assert all(each.grant.is_configured for each in said if isinstance(each, Granted))
    first, second, *rest = source.step(_named("lan", "new"), NOW)
    # What goes, goes first: the network of one may be that of another now.
    assert first == Withdrawn(GrantKey("static", "home"))
    assert isinstance(second, Granted) and len(rest) == 1
    assert source.deadline() is None


def test_nothing_is_given_on_request() -> None:
    (said,) = StaticSource().step(Request((AddressType.FIXED, Family.IPV6)), NOW)
    assert isinstance(said, Failed)
    assert said.cause == "no IPv6 prefix for fixed is configured"
    source = StaticSource()
    source.step(Configured((PREFIX,)), NOW)
    (said,) = source.step(Request((AddressType.FIXED, Family.IPV6)), NOW)
    assert isinstance(said, Failed)  # its uplink is down, or it would not be requested
    assert said.cause == "no other IPv6 prefix for fixed is configured"
