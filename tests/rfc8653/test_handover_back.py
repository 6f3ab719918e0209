"""T1-T4, N3: links that come back, a handover within another, and no agent while the host moves.

The host has two interfaces, each at a site of its own.
"""

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from odm_agent.core.model import TYPES, AddressType
from odm_agent.core.standing_in import NETWORK_S
from tests.lab.client import outcome
from tests.lab.host import FIXED, GRACEFUL, SESSION
from tests.lab.place import Ready
from tests.lab.root import needs_root
from tests.netlab.plan import CORE
from tests.netlab.site import AccessSite
from tests.netlab.streams import Stream
from tests.netlab.travelling import REST_S, Traveller
from tests.netlab.watch import Watch

pytestmark = needs_root

_KEPT: Final = (FIXED, SESSION)
#: TCP tries again ever more seldom, so it takes as long again as nothing led anywhere.
_FLOWS_S: Final = 60.0


@pytest.fixture(scope="module")
def traveller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traveller]:
    with Traveller(tmp_path_factory.mktemp("traveller")) as made:
        yield made


@pytest.fixture(scope="module")
def watching(traveller: Traveller) -> Iterator[Watch]:
    with Watch(traveller.lab.sites.values(), traveller.lab.folder) as made:
        yield made


@pytest.fixture
def watch(watching: Watch) -> Watch:
    """What comes to both gateways from now on. To one that has its link back comes what has waited
    in the kernel for its link-layer address, before the site has said anything.
    """
    watching.forget()
    return watching


class Streams:
    """A stream of each of these types, each with the source that it begins with."""

    def __init__(self, traveller: Traveller, types: Iterable[AddressType]) -> None:
        self._streams: dict[AddressType, tuple[Stream, str]] = {}
        for type in types:
            source = str(traveller.roamer.source("isp", type))
            stream = traveller.open("tcp", type, f"{type.word}-{time.monotonic_ns()}")
            self._streams[type] = stream, source

    def came_since(self, since_s: float) -> bool:
        """Whether the correspondent has heard anything of any of them."""
        return any(
            each > since_s for stream, _ in self._streams.values() for each in stream.arrivals()
        )

    def go_on(self) -> None:
        """They flow again, and have lost nothing."""
        now_s = time.monotonic()
        for stream, _ in self._streams.values():
            stream.await_flow(now_s, _FLOWS_S)
        for type, (stream, source) in self._streams.items():
            ended = stream.stop()
            assert (ended.error, ended.lost, ended.source) == (None, 0, source), (type, ended)
            assert ended.got


@contextmanager
def _lost(site: AccessSite) -> Iterator[None]:
    """No link to a site."""
    site.unplug()
    try:
        yield
    finally:
        site.plug()
        site.await_router()


@contextmanager
def without_the_other(traveller: Traveller) -> Iterator[AccessSite]:
    """The site at which the host is, and no link to the other one; at the end there are both."""
    site = traveller.settled()
    other = traveller.other(site)
    other.unplug()
    try:
        yield site
    finally:
        for each in (site, other):
            each.plug()
            each.await_router()


@pytest.mark.parametrize("gone_s", [0.1, 1.0])
def test_N3_a_link_that_flaps_costs_no_type_anything(traveller: Traveller, gone_s: float) -> None:
    with without_the_other(traveller) as site:
        streams = Streams(traveller, TYPES)
        site.unplug()
        time.sleep(gone_s)
        site.plug()
        streams.go_on()


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_N3_all_links_are_gone_and_one_comes_back(
    traveller: Traveller, watch: Watch, where: str
) -> None:
    """Meanwhile who connects is told that there is nothing, who has begun to as soon as it is clear
    that no network comes.
    """

    def connect() -> None:
        socket.create_connection((str(CORE[1]), 80), timeout=20.0).close()

    def early(ready: Ready) -> None:
        ready(None)
        ready(outcome(connect))

    place = traveller.roamer.places[GRACEFUL.word]
    with without_the_other(traveller) as site:
        streams = Streams(traveller, _KEPT)
        site.unplug()
        time.sleep(0.5)
        with place.conversation(early) as talk:
            talk.hear()
            assert talk.hear(NETWORK_S + 10.0) == "ECONNABORTED"
        time.sleep(0.5)
        gone_s = time.monotonic()
        assert place.do(lambda: outcome(connect)) not in ("ok", "timeout")
        assert not streams.came_since(gone_s)
        back = site if where == "here" else traveller.other(site)
        back.plug()
        streams.go_on()
        traveller.await_attached(back)
        assert place.do(lambda: outcome(connect)) == "ok"
    assert where == "here" or not watch.strays()


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.3])
def test_N3_a_handover_in_the_middle_of_another(traveller: Traveller, after_s: float) -> None:
    """The next site is lost as well, and the host is back at the first one."""
    site = traveller.settled()
    streams = Streams(traveller, _KEPT)
    time.sleep(REST_S)
    site.unplug()
    time.sleep(after_s)
    with _lost(traveller.other(site)):
        site.plug()
        streams.go_on()
        traveller.await_attached(site)


@pytest.mark.parametrize("when_s", [-0.5, 0.0, 0.03, 0.3])
def test_N3_the_agent_is_dead_while_the_host_moves(
    traveller: Traveller, watch: Watch, when_s: float
) -> None:
    """Before, or in the middle. Nothing leaves by the next site before there is one again."""
    site, agent = traveller.settled(), traveller.roamer.agent
    other = traveller.other(site)
    streams = Streams(traveller, _KEPT)
    if when_s < 0:
        agent.sigkill()
        time.sleep(-when_s)
    with _lost(site):
        if when_s >= 0:
            time.sleep(when_s)
            agent.sigkill()
        time.sleep(1.0)
        dead_s = time.monotonic()
        time.sleep(1.0)
        assert when_s >= 0 or not streams.came_since(dead_s)
        agent.start()
        streams.go_on()
        traveller.await_attached(other)
    assert not watch.strays()
