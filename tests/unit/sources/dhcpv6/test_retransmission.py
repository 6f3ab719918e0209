"""Each row of RFC 8415, section 7.6, by the times at which messages are sent (section 15)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from odm_agent.core.events import Failed, Failure, Withdrawn
from odm_agent.sources.dhcpv6.messages import Kind, Message
from odm_agent.sources.dhcpv6.source import PATIENCE_S
from tests.virtual.delegated import FIXED, SESSION, SETTINGS, Link
from tests.virtual.dhcpv6_server import Server

AT_START = replace(SETTINGS, at_start=frozenset({SESSION}))
SEEDS = pytest.mark.parametrize("seed", range(5))


def of(*kinds: Kind) -> Callable[[Message], bool]:
    """Messages of these kinds get lost."""
    return lambda message: message.kind in kinds


def assert_backed_off(times: Sequence[float], irt_s: float, mrt_s: float = 0.0) -> None:
    """RT1 is IRT, each RT twice the one before up to MRT; all within a tenth."""
    gaps = [later - sooner for sooner, later in pairwise(times)]
    assert gaps, "sent once only"
    assert 0.9 * irt_s <= gaps[0] <= 1.1 * irt_s
    for before, gap in pairwise(gaps):
        doubled = 1.9 * before - 1e-6 <= gap <= 2.1 * before + 1e-6
        at_most = mrt_s and 0.9 * mrt_s <= gap <= 1.1 * mrt_s and 2.1 * before >= mrt_s
        assert doubled or at_most, f"{gap} s after {before} s"


@SEEDS
def test_solicit_backs_off_to_an_hour_and_never_ends(seed: int) -> None:
    link = Link(AT_START, servers=[], seed=seed)
    assert not link.sent, "the first waits a random time"
    link.advance(1.0)
    assert link.kinds == [Kind.SOLICIT]
    link.advance(30_000)
    times = link.times(Kind.SOLICIT)
    assert_backed_off(times, 1, 3600)
    assert times[1] > 1.0, "who listens for a second hears all Advertises"
    assert 15 < len(times) < 25
    assert len({message.xid for _, message in link.sent}) == 1
    for at_s, (_, message) in zip(times, link.sent, strict=True):
        assert message.elapsed == min(int(at_s * 100 + 1e-6), 0xFFFF)


def test_a_server_says_how_seldom_solicits_may_be() -> None:
    server = Server(exhausted={2})
    server.twist = lambda said: replace(said, sol_max_rt_s=60)
    link = Link(AT_START, servers=[server])
    link.advance(3000)
    assert_backed_off(link.times(Kind.SOLICIT), 1, 60)
    assert len(link.sent) > 40


@pytest.mark.parametrize("seconds", [0, 59, 86401, 2**32 - 1])
def test_what_no_server_may_say_of_that_counts_for_nothing(seconds: int) -> None:
    server = Server(exhausted={2})
    server.twist = lambda said: replace(said, sol_max_rt_s=seconds)
    link = Link(AT_START, servers=[server])
    link.advance(30_000)
    assert_backed_off(link.times(Kind.SOLICIT), 1, 3600)


@SEEDS
def test_request_is_sent_ten_times_and_then_solicited_anew(seed: int) -> None:
    link = Link(AT_START, servers=[Server(rapid=False)], seed=seed, lossy=of(Kind.REQUEST))
    link.advance(290)
    requests = [m for _, m in link.sent if m.kind is Kind.REQUEST]
    times = link.times(Kind.REQUEST)[:10]
    assert_backed_off(times, 1, 30)
    assert len({m.xid for m in requests[:10]}) == 1
    after = [m.kind for _, m in link.sent]
    first = after.index(Kind.REQUEST)
    assert after[first : first + 11] == [Kind.REQUEST] * 10 + [Kind.SOLICIT]


@SEEDS
def test_renew_begins_at_t1_and_rebind_at_t2_until_the_prefix_is_not_valid(seed: int) -> None:
    server = Server(t1_s=2000, t2_s=5000, preferred_s=8000, valid_s=12000)
    link = Link(AT_START, servers=[server], seed=seed)
    link.advance(2)
    link.servers.clear()
    (bound_s,) = [s for s, _ in link.outcomes()]
    link.advance(13_000)
    renews = [s - bound_s for s, m in link.sent if m.kind is Kind.RENEW]
    assert renews[0] == pytest.approx(2000)
    assert_backed_off(renews, 10, 600)
    assert max(renews) < 5000
    rebinds = [s - bound_s for s, m in link.sent if m.kind is Kind.REBIND]
    assert rebinds[0] == pytest.approx(5000)
    assert_backed_off(rebinds, 10, 600)
    assert max(rebinds) < 12000
    assert [s - bound_s for s, e in link.said if isinstance(e, Withdrawn)] == [pytest.approx(12000)]
    for kind, has_server in ((Kind.RENEW, True), (Kind.REBIND, False)):
        sent = [m for _, m in link.sent if m.kind is kind]
        assert {m.server is not None for m in sent} == {has_server}
        assert len({m.xid for m in sent}) == 1
        assert sent[0].elapsed == 0


@SEEDS
def test_rebind_after_a_link_change_is_sent_for_ten_seconds(seed: int) -> None:
    link = Link(AT_START, seed=seed)
    link.advance(2)
    link.servers.clear()
    link.link(False)
    link.advance(5)
    link.link(True)
    up_s = link.boot_s
    link.advance(200)
    rebinds = [(s, m.xid) for s, m in link.sent if m.kind is Kind.REBIND]
    times = [s for s, xid in rebinds if xid == rebinds[0][1]]
    assert 0.0 <= times[0] - up_s <= 1.0
    assert_backed_off(times, 1, 4)
    assert len(times) in (4, 5) and times[-1] - times[0] < 10
    later = [s for s, xid in rebinds if xid != rebinds[0][1]]
    assert later[0] - times[0] == pytest.approx(10)
    assert_backed_off(later, 10, 600)
    assert not link.of(Withdrawn)


@SEEDS
def test_release_is_sent_four_times_and_then_over(seed: int) -> None:
    link = Link(seed=seed)
    link.ask()
    link.advance(1)
    link.lossy = of(Kind.RELEASE)
    link.give_back()
    assert link.of(Withdrawn) and Kind.RELEASE not in link.kinds, "it is not used first"
    link.advance(60)
    times = link.times(Kind.RELEASE)
    assert_backed_off(times, 1)
    assert len(times) == 4
    assert link.source.deadline() is None


def test_twenty_messages_in_twenty_seconds_are_the_most() -> None:
    server = Server()
    server.twist = lambda said: None
    link = Link(servers=[server])
    for _ in range(300):
        link.ask(SESSION)
        link.ask(FIXED)
        link.release(SESSION)
        link.advance(0.1)
    times = [at_s for at_s, _ in link.sent]
    assert len(times) > 20
    for first, last in zip(times, times[20:], strict=False):
        assert last - first >= 20 - 1e-6


def test_who_waits_is_told_in_time_that_nobody_answers() -> None:
    link = Link(servers=[])
    link.ask()
    link.advance(PATIENCE_S - 0.1)
    assert not link.of(Failed)
    link.advance(0.2)
    (failed,) = link.of(Failed)
    assert failed.kind is Failure.TIMED_OUT
    assert link.times(Kind.SOLICIT)[-1] < PATIENCE_S
    link.advance(100)
    assert link.source.deadline() is None, "nobody wants it any more"


def test_without_a_link_nothing_is_sent_and_who_waits_is_told() -> None:
    link = Link(up=False)
    link.ask()
    link.advance(60)
    (failed,) = link.of(Failed)
    assert failed.kind is Failure.TIMED_OUT and "no link" in failed.cause
    assert not link.sent
