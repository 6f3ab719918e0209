"""The way of a need, step by step, on the virtual host: the agent's own driver and engine."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Network, ip_address
from itertools import pairwise
from pathlib import Path

import pytest

from odm_agent.core import trace
from odm_agent.core.asking import MOST_DEMANDS, USABLE_S
from odm_agent.core.effects import Answer, Conclude, Look, Probe, Project, Record, Release, Request
from odm_agent.core.errors import OdmError
from odm_agent.core.events import Changed, Dirty, Failed, Granted, Offered
from odm_agent.core.grants import GrantKey
from odm_agent.core.host import HostState
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import Lifetime, Phase
from odm_agent.core.looking import BURST_S, RESYNC_S, RETRY_S
from odm_agent.core.model import AddressType, Placement, TypedPrefix
from odm_agent.sources.base import Received
from tests.virtual.source import APART_S, FIXED6, NAME, SENT, SESSION4, SESSION6, Reply, grant
from tests.virtual.world import DAD_S, PROBE_S, World

_NET = IPv6Network("3fff:1::/64")
HOME = TypedPrefix(1, "home", AddressType.FIXED, _NET, "w0", None, Placement.DELEGATED, (_NET,))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.advance(1.0)
    world.effects.clear()
    yield world
    world.journal.close()


def _kinds(world: World) -> list[type]:
    return [type(effect) for effect in world.effects]


def test_a_need_is_requested_granted_probed_offered_and_then_answered(world: World) -> None:
    world.replies = [Reply(delay_s=0.5, on_link=True)]
    ticket = world.ask(SESSION4, 30.0)
    assert _kinds(world) == [Look, Request]
    world.advance(0.5)
    assert _kinds(world)[2:] == [Record, Project, Look, Probe]
    world.advance(PROBE_S - 0.1)
    assert ticket in world.callers
    world.advance(0.2)
    assert _kinds(world)[6:] == [Conclude, Look, Answer]
    answer = world.answers[ticket]
    assert answer.cause is None and answer.address in {a for a, _ in world.kernel.addresses}


@pytest.mark.parametrize("dirty", [Dirty.KERNEL, Dirty.CGROUPS])
def test_with_the_news_of_the_kernel_links_are_glanced_at_before_a_pass(
    world: World, dirty: Dirty
) -> None:
    world.glances.clear()
    world.driver.put(Changed(dirty))
    world.run()
    world.advance(BURST_S)
    assert _kinds(world) == [Look]
    assert world.glances == ([0] if dirty is Dirty.KERNEL else [])


def test_an_address_that_another_host_uses_is_not_answered_but_the_next_one_is(
    world: World,
) -> None:
    world.replies = [Reply(on_link=True)]
    ticket = world.ask(SESSION4, 30.0)
    world.advance(0.6)
    (taken,) = world.probing
    world.in_use_elsewhere.add(taken.address)
    world.advance(2 * PROBE_S + 0.2)
    assert world.answers[ticket].address not in (None, taken.address)


def test_detection_of_duplicates_is_waited_for(world: World) -> None:
    world.replies = [Reply(delay_s=0.0, on_link=True)]
    ticket = world.ask(SESSION6, 30.0)
    world.advance(DAD_S - 0.1)
    assert ticket in world.callers
    world.advance(0.2)
    assert world.answers[ticket].address is not None


def test_what_is_configured_is_answered_without_a_request(world: World) -> None:
    world.reload((HOME,))
    ticket = world.ask(FIXED6, 30.0)
    address = world.answers[ticket].address
    assert address is not None and address in _NET
    assert Request not in _kinds(world)


def test_a_source_that_fails_answers_at_once_and_is_asked_again_after_a_while(
    world: World,
) -> None:
    world.replies = [Reply(delay_s=0.5, fails=True), Reply()]
    first = world.ask(SESSION6, 30.0)
    world.advance(0.6)
    assert world.answers[first].cause == "the server has none"
    asked = len(world.told)
    second = world.ask(SESSION6, 30.0)
    assert world.answers[second].cause == "the server has none"
    assert len(world.told) == asked
    world.advance(1.0)
    third = world.ask(SESSION6, 30.0)
    world.advance(0.6)
    assert world.answers[third].cause is None


def test_a_server_that_is_silent_is_asked_again_and_given_up(world: World) -> None:
    world.replies = [Reply(lost=True)] * SENT
    ticket = world.ask(SESSION6, 30.0)
    world.advance(SENT * APART_S - 0.1)
    assert not world.replies and ticket in world.callers
    world.advance(0.2)
    assert world.answers[ticket].cause == "the server does not answer"


def test_who_has_waited_long_enough_is_told_so_to_the_moment(world: World) -> None:
    world.replies = [Reply(delay_s=5.0)]
    ticket = world.ask(SESSION6, 2.0)
    world.advance(1.999)
    assert ticket in world.callers
    world.advance(0.002)
    assert world.answers[ticket].cause == "no usable address came in time"


def test_what_is_withdrawn_while_it_is_waited_for_is_requested_anew(world: World) -> None:
    world.replies = [Reply(delay_s=0.1, on_link=True, withdrawn_s=0.5), Reply(delay_s=0.1)]
    ticket = world.ask(SESSION6, 30.0)
    world.advance(1.0)
    address = world.answers[ticket].address
    assert address is not None and address in IPv6Network("2001:db8:2::/64")


def test_an_address_is_given_as_long_as_its_prefix_is_preferred_and_kept_while_that_is_valid(
    world: World,
) -> None:
    world.replies = [Reply(preferred_s=5.0, valid_s=100.0)]
    world.ask(SESSION6, 30.0)
    world.advance(1.0)
    address = world.connect(SESSION6)
    world.advance(5.0)
    assert world.connect(SESSION6) is None  # deprecated
    world.advance(RESYNC_S)
    assert address in {a for a, _ in world.kernel.addresses}
    assert world.sockets == [address]
    world.advance(100.0 - RESYNC_S)
    assert not world.sockets  # an address never outlives its prefix
    assert not world.kernel.addresses
    assert not world.journal.leases()


def test_an_unused_prefix_that_is_only_deprecated_stays_as_it_may_be_renewed(world: World) -> None:
    world.replies = [Reply(preferred_s=5.0, valid_s=200.0)]
    world.ask(SESSION6, 30.0)
    world.advance(100.0)
    assert world.kernel.addresses
    world.renew(1, 50.0)
    world.advance(1.0)
    assert world.connect(SESSION6) is not None


def test_a_renumbered_source_overlaps_old_and_new(world: World) -> None:
    world.replies = [Reply(delay_s=0.0)]
    world.ask(SESSION6, 30.0)
    world.advance(1.0)
    old = world.connect(SESSION6)
    world.renumber(1)
    world.advance(1.0)
    assert {a for a, _ in world.kernel.addresses} > {old}
    world.advance(10.0)
    new = world.connect(SESSION6)
    assert new is not None and new != old
    world.advance(RESYNC_S + 1)
    assert {a for a, _ in world.kernel.addresses} == {old, new}
    world.sockets = [new]
    world.advance(RESYNC_S + 1)
    assert {a for a, _ in world.kernel.addresses} == {new}


def test_a_grant_that_overlaps_the_configuration_is_refused(world: World) -> None:
    network = IPv6Network("2001:db8::/32")
    around = TypedPrefix(
        *(1, "home", AddressType.FIXED, network, "w0", None, Placement.DELEGATED, (network,))
    )
    world.reload((around,))
    world.replies = [Reply()]
    ticket = world.ask(SESSION6, 30.0)
    world.advance(1.0)
    assert world.answers[ticket].cause == "2001:db8:1::/64 overlaps 2001:db8::/32"
    assert not world.journal.leases()


def test_the_configuration_has_the_last_word_on_a_network(world: World) -> None:
    world.replies = [Reply()]
    world.ask(SESSION6, 30.0)
    world.advance(1.0)
    network = IPv6Network("2001:db8::/32")
    around = TypedPrefix(
        *(1, "home", AddressType.FIXED, network, "w0", None, Placement.DELEGATED, (network,))
    )
    world.reload((around,))
    assert [row.prefix.name for row in world.engine.table] == ["home"]
    assert not world.journal.leases()


def test_the_start_waits_for_all_addresses_or_long_enough(world: World) -> None:
    net = IPv6Network("3fff:2::/64")
    office = TypedPrefix(
        *(2, "office", AddressType.FIXED, net, "w0", None, Placement.ON_LINK, (net,))
    )
    world.reload((office,))
    ticket = world.ask(None, USABLE_S)
    world.advance(DAD_S - 0.1)
    assert ticket in world.callers
    world.advance(0.2)
    assert world.answers[ticket].cause is None


def _looks(world: World, seconds: float) -> list[Look]:
    world.effects.clear()
    world.advance(seconds)
    return [effect for effect in world.effects if isinstance(effect, Look)]


def test_nothing_is_looked_at_without_a_reason_but_once_a_minute(world: World) -> None:
    assert not _looks(world, RESYNC_S - 2.0)
    (look,) = _looks(world, 2.0)
    assert look.resync and look.dirty is Dirty.ALL
    assert len(_looks(world, 10 * RESYNC_S)) == 10


def test_what_could_not_be_done_is_tried_again_soon(world: World) -> None:
    world.refuse_kernel = True
    world.reload((HOME,))
    assert len(_looks(world, 5 * RETRY_S + 0.1)) == 5
    world.refuse_kernel = False
    assert len(_looks(world, 5 * RETRY_S)) == 1


def test_a_fault_of_the_agent_is_tried_again_ever_more_seldom(world: World) -> None:
    world.advance(RESYNC_S)
    world.log.lines.clear()
    world.fail_own = True
    world.ask(None, 1.0)
    world.advance(4 * RESYNC_S)
    seen = trace.events_of(line.removeprefix("event ") for line in world.log.lines)
    moments = [now.boot_s for now, event in seen if isinstance(event, Offered)]
    apart = [round(later - earlier) for earlier, later in pairwise(moments)]
    assert apart[:4] == [2, 4, 8, 16]
    assert max(apart) <= RESYNC_S and len(moments) < 10


def test_leases_go_on_after_the_agent_was_killed_and_after_a_boot(world: World) -> None:
    world.replies = [Reply(preferred_s=100.0, valid_s=200.0)]
    world.ask(SESSION6, 30.0)
    world.advance(1.0)
    address = world.connect(SESSION6)
    world.start()
    world.advance(1.0)
    assert world.connect(SESSION6) == address
    world.reboot()
    world.advance(1.0)
    assert world.connect(SESSION6) == address
    world.sockets.clear()
    (lease,) = _leases(world)
    assert lease.phase is Phase.CURRENT
    # 0.5 and 1 s, the boot of 30 + 5 s, and 1 s have passed since it was given.
    assert lease.lifetime.preferred_until_s - world.boot_s == pytest.approx(62.5, abs=0.01)
    world.advance(180.0)
    assert not world.kernel.addresses


def test_the_lease_of_a_source_that_there_is_no_more_ends_when_unused(world: World) -> None:
    elsewhere = GrantKey("gone", "1")
    world.replies = [Reply()]
    world.ask(SESSION6, 30.0)
    world.advance(1.0)
    ((id_, text),) = world.journal.leases().items()
    world.journal.keep_leases({id_: text.replace("'script'", repr(elsewhere.source))})
    world.start()
    world.advance(RESYNC_S + 1.0)
    assert not world.kernel.addresses
    assert not world.journal.leases()


def test_no_more_than_so_many_may_wait(world: World) -> None:
    world.replies = [Reply(delay_s=20.0)]
    tickets = [world.ask(SESSION6, 10.0) for _ in range(MOST_DEMANDS + 1)]
    assert world.answers[tickets[-1]].cause == "too many wait already; ask again later"
    assert len(world.callers) == MOST_DEMANDS


def test_a_source_that_breaks_ends_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(world.driver._sources["script"], "step", fail)
    ticket = world.ask(SESSION6, 30.0)
    world.advance(0.1)
    assert world.answers[ticket].cause == "source script failed"


def test_without_a_number_a_grant_is_not_held_and_who_waits_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OdmError("all numbers are taken")

    monkeypatch.setattr(world, "number", refuse)
    world.replies = [Reply()]
    ticket = world.ask(SESSION6, 30.0)
    world.advance(1.0)
    assert world.answers[ticket].cause == "all numbers are taken"
    assert not _leases(world)


def test_addresses_of_a_withdrawn_configuration_go_at_once(world: World) -> None:
    world.reload((HOME,))
    assert world.connect(FIXED6) is not None
    world.reload(())
    assert not world.kernel.addresses


def test_an_infinite_lifetime_is_kept_as_one(world: World) -> None:
    world.replies = [Reply()]
    world.ask(SESSION6, 30.0)
    world.advance(1.0)
    (lease,) = world.leases.read(world.now())
    assert lease.lifetime == Lifetime()
    assert ip_address(lease.grant.prefix.network.network_address) == ip_address("2001:db8:1::")


def test_nothing_is_preferred_for_longer_than_it_is_valid(world: World) -> None:
    world.replies = [Reply(valid_s=5.0)]
    world.ask(SESSION6, 30.0)
    world.advance(RESYNC_S + 7.0)
    assert not world.kernel.addresses


def test_one_request_serves_all_who_wait_and_is_released_when_nobody_does(world: World) -> None:
    world.replies = [Reply(lost=True)] * SENT
    first, second = (world.ask(SESSION6, 30.0) for _ in range(2))
    world.change_link(False)  # another look
    world.advance(0.1)
    assert _kinds(world).count(Request) == 1
    world.cancel(first)
    assert Release not in _kinds(world)
    world.cancel(second)
    assert _kinds(world).count(Release) == 1
    world.advance(SENT * APART_S)
    assert len(world.replies) == SENT - 1, "the source goes on sending"


def test_a_source_that_has_given_and_fails_then_takes_nothing_from_who_waits(world: World) -> None:
    world.replies = [Reply(delay_s=0.0, on_link=True)]
    ticket = world.ask(SESSION6, 30.0)
    world.advance(0.5)
    world.driver.put(Failed(SESSION6, "too late"))
    world.advance(DAD_S)
    assert world.answers[ticket].cause is None


def test_who_asks_when_all_is_deprecated_gets_something_new(world: World) -> None:
    world.replies = [Reply(preferred_s=5.0, valid_s=100.0), Reply()]
    first = world.ask(SESSION6, 30.0)
    world.advance(8.0)
    second = world.ask(SESSION6, 30.0)
    world.advance(1.0)
    assert world.answers[second].address not in (None, world.answers[first].address)


def test_another_prefix_under_the_same_key_takes_the_place_of_the_one_before(world: World) -> None:
    world.replies = [Reply()]
    world.ask(SESSION6, 30.0)
    world.advance(1.0)
    old = world.connect(SESSION6)
    given = grant(9, SESSION6, Lifetime())
    id_ = world.number(given).prefix.id
    moved = replace(given, key=world.grants[1].key, prefix=replace(given.prefix, id=id_))
    world.driver.put(Granted(moved))
    world.advance(1.0)
    phases = {lease.grant.prefix.name: lease.phase for lease in _leases(world)}
    assert phases == {"g1": Phase.LINGERING, "g9": Phase.CURRENT}
    assert world.connect(SESSION6) not in (None, old)


def test_a_lingering_lease_that_is_renewed_is_offered_before_it_is_current(world: World) -> None:
    world.replies = [Reply(preferred_s=5.0)]
    world.ask(SESSION6, 30.0)
    world.advance(8.0)
    assert [lease.phase for lease in _leases(world)] == [Phase.LINGERING]
    world.refuse_kernel = world.fail_own = True
    world.renew(1, 50.0)
    assert [lease.phase for lease in _leases(world)] == [Phase.PROBING]
    world.refuse_kernel = world.fail_own = False
    world.advance(10.0)
    assert [lease.phase for lease in _leases(world)] == [Phase.CURRENT]


def _leases(world: World) -> list[Lease]:
    return list(world.driver._state.holding.leases.values())


def test_what_comes_for_a_source_interrupts_a_look_and_is_taken_in_the_same_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.replies = [Reply(delay_s=0.0)]
    world.ask(SESSION6, 30.0)
    world.advance(5.0)
    world.effects.clear()
    read, fed = world.kernel.read, list[str]()

    def reading() -> HostState:
        if not fed:  # while the first look is under way
            fed.append("a datagram")
            said = Granted(grant(77, FIXED6, Lifetime(world.boot_s + 100.0)))
            world.driver.feed(NAME, Received(trace.spelled(said).encode(), "server"))
        return read()

    monkeypatch.setattr(world.kernel, "read", reading)
    world.driver.put(Changed(Dirty.KERNEL))
    world.advance(BURST_S)
    assert _kinds(world) == [Look, Record, Project, Look]
    assert sum("Interrupted(" in line for line in world.log.lines) == 1
    assert world.engine.is_at_rest
