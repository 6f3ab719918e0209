"""An old graceful-replacement prefix serves new sockets until another one does."""

from dataclasses import replace

import pytest

from odm_agent.core.effects import Project
from odm_agent.core.events import Granted, Offered, Tick, Unserved
from odm_agent.core.grants import GrantKey
from odm_agent.core.lifetimes import Lifetime
from odm_agent.core.model import TYPES, AddressType
from odm_agent.core.standing_in import NETWORK_S, SUCCESSOR_S
from tests.unit.core.test_handover import BEGIN_S, GRACEFUL, KEY, OTHER, UNTIL, Host, grant

DEPRECATED = Lifetime(BEGIN_S, BEGIN_S + 3600)
SUCCESSOR = replace(grant(GRACEFUL, OTHER, 8), key=GrantKey(KEY.source, "2"))


def deprecated(host: Host) -> None:
    host.hears(Granted(replace(grant(GRACEFUL), lifetime=DEPRECATED)))


@pytest.mark.parametrize("type_", TYPES, ids=lambda each: each.word)
def test_that_alone_of_all_types_waits_for_the_next_network(type_: AddressType) -> None:
    host = Host(type_)
    host.loses_its_link()
    assert host.prefix.waits is host.prefix.stands_in is (type_ is GRACEFUL)


def test_it_waits_for_some_seconds_only_and_once() -> None:
    host = Host(GRACEFUL)
    host.loses_its_link()
    host.loses_its_link()
    host.hears(Tick(), NETWORK_S - 0.1)
    assert host.prefix.waits
    host.hears(Tick(), 0.1)
    assert not host.prefix.stands_in and not host.prefix.lingering
    host.loses_its_link()
    assert not host.prefix.stands_in, "its link was lost before"


def test_a_network_that_serves_it_ends_that_and_one_that_does_not_as_well() -> None:
    host = Host(GRACEFUL)
    host.loses_its_link()
    host.hears(Granted(grant(GRACEFUL)))
    assert not host.prefix.stands_in and host.prefix.attached
    host.loses_its_link()
    host.hears(Unserved(KEY))
    assert not host.prefix.stands_in and host.prefix.lingering


def test_deprecated_it_serves_until_another_one_does() -> None:
    host = Host(GRACEFUL)
    host.loses_its_link()
    deprecated(host)
    assert host.prefix.stands_in and not host.prefix.waits and not host.prefix.lingering
    (address,) = host.prefix.addresses
    assert address.lifetime == Lifetime(BEGIN_S + SUCCESSOR_S, DEPRECATED.valid_until_s)
    host.hears(Granted(SUCCESSOR), 1.0)
    assert host.prefix.stands_in, "that one is not ready yet"
    host.hears(Offered(ready=frozenset({7, 8})), 1.0)
    assert not host.prefix.stands_in and host.prefix.lingering
    (address,) = host.prefix.addresses
    assert address.lifetime == Lifetime(host.now_s, DEPRECATED.valid_until_s)


def test_what_the_network_says_again_makes_it_no_longer() -> None:
    host = Host(GRACEFUL)
    deprecated(host)
    for _ in range(2):
        host.now_s += SUCCESSOR_S / 2
        deprecated(host)
    assert not host.prefix.stands_in and host.prefix.lingering
    deprecated(host)
    assert not host.prefix.stands_in


def test_it_stands_in_when_its_time_is_over_and_no_longer_than_it_is_valid() -> None:
    host = Host(GRACEFUL)
    host.hears(Granted(replace(grant(GRACEFUL), lifetime=Lifetime(BEGIN_S + 10, BEGIN_S + 14))))
    assert not host.prefix.stands_in
    host.hears(Tick(), 10.0)
    assert host.prefix.stands_in
    host.hears(Tick(), 4.0)
    assert not host.prefix.stands_in and host.prefix.lingering


def test_of_another_type_it_is_given_to_nobody_from_then_on() -> None:
    for type_ in {*TYPES} - {GRACEFUL}:
        host = Host(type_)
        host.hears(Granted(replace(grant(type_), lifetime=DEPRECATED)))
        assert host.prefix.lingering and not host.prefix.stands_in


def test_it_does_not_wait_where_another_one_serves() -> None:
    host = Host(GRACEFUL)
    host.hears(Granted(SUCCESSOR))
    host.hears(Offered(ready=frozenset({7, 8})))
    host.loses_its_link()
    assert host.prefix.waits
    host.hears(Offered(ready=frozenset({8}), stalled=frozenset({7})))
    assert not host.prefix.stands_in and not host.prefix.lingering
    assert host.lease.lifetime == UNTIL


def test_a_prefix_that_has_not_served_yet_does_not_begin_to() -> None:
    host = Host(GRACEFUL)
    host.hears(Granted(replace(SUCCESSOR, lifetime=DEPRECATED)))
    table = [each for each in host.done if isinstance(each, Project)][-1].prefixes
    assert [each.lingering for each in table if each.id == 8] == [True]
