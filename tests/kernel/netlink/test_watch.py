"""The watch wakes for what matters to us, and survives being overrun."""

import select
import socket
from collections.abc import Iterator

import pytest

from odm_agent.kernel.watch import Watch
from tests.lab.netns import NetNs


@pytest.fixture
def watch(host: NetNs) -> Iterator[Watch]:
    with host.call(Watch) as watch:
        quiet(watch)
        yield watch


def quiet(watch: Watch) -> None:
    """Drain until nothing came for a while (new links make their link-local routes)."""
    while select.select([watch], [], [], 0.3)[0]:
        watch.drain()


@pytest.mark.parametrize(
    "change",
    [
        "link set w1 down",
        "link set w1 mtu 1400",
        "address add 10.0.0.1/32 dev lo",
        "address add 2001:db8::5/128 dev lo nodad",
        "route add 10.9.0.0/16 via 192.0.2.1",
        "route add 2001:db8:99::/48 via 2001:db8:1::1",
        "-4 rule add pref 5 lookup 7",
        "-6 rule add pref 5 lookup 7",
    ],
)
def test_a_change_is_noticed_at_once(host: NetNs, watch: Watch, change: str) -> None:
    assert watch.drain() is False
    host.ip(*change.split())
    assert select.select([watch], [], [], 1.0)[0]
    assert watch.drain() is True
    quiet(watch)
    assert watch.drain() is False


def test_news_are_there_until_they_are_taken_whoever_has_drained_them(
    host: NetNs, watch: Watch
) -> None:
    assert watch.take_news() is True, "nobody has looked yet"
    assert watch.take_news() is False
    host.ip("address", "add", "10.0.0.1/32", "dev", "lo")
    watch.drain()
    assert watch.take_news() is True
    quiet(watch)
    watch.take_news()
    assert watch.take_news() is False


def test_other_lifetimes_of_an_address_are_no_news_but_their_end_is(
    host: NetNs, watch: Watch
) -> None:
    address = (
        "address change 2001:db8:1::7/64 dev w1 nodad noprefixroute valid_lft {} preferred_lft {}"
    )
    host.ip(*address.format(600, 300).split())
    assert select.select([watch], [], [], 1.0)[0]
    assert watch.drain() is True
    quiet(watch)
    host.ip(*address.format(700, 400).split())
    assert select.select([watch], [], [], 1.0)[0]
    assert watch.drain() is False
    host.ip(*address.format(700, 0).split())
    assert watch.drain() is True, "it is deprecated"
    host.ip("address", "del", "2001:db8:1::7/64", "dev", "w1")
    assert watch.drain() is True
    quiet(watch)
    host.ip(*address.format(600, 300).split())
    assert watch.drain() is True, "it is there again"


def test_an_overrun_counts_as_a_change(host: NetNs, watch: Watch) -> None:
    with socket.socket(fileno=socket.dup(watch.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    host.batch("".join(f"address add 10.0.1.{number}/32 dev lo\n" for number in range(1, 100)))
    assert watch.drain() is True
    quiet(watch)
    assert watch.drain() is False
