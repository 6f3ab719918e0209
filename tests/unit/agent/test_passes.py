"""What a pass does beside converging, and what becomes of what goes wrong in it."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Network, ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from odm_agent.agent import passes
from odm_agent.agent.delegations import Delegations
from odm_agent.agent.engine import Engine
from odm_agent.agent.event_log import EventLog
from odm_agent.agent.passes import Passes
from odm_agent.core.actions import KernelAction
from odm_agent.core.effects import Look
from odm_agent.core.errors import KernelError
from odm_agent.core.events import Dirty, Interrupted, Offered, Serving
from odm_agent.core.host import HostState
from odm_agent.core.model import AddressType, ClassPolicy, Family, Placement, TypedPrefix
from odm_agent.datapath.base import LiveKey
from odm_agent.datapath.fake import FakeDatapath
from odm_agent.kernel.fake import FakeKernel
from odm_agent.prefixes.table import PrefixTable
from tests.unit.agent.test_handover_book import unwritten
from tests.virtual.world import NUMBERS

NET, OTHER = IPv6Network("2001:db8:1::/64"), IPv6Network("2001:db8:2::/64")
PREFIX = TypedPrefix(3, "g", AddressType.FIXED, NET, "w0", None, Placement.DELEGATED, (NET,))
WANT = (AddressType.FIXED, Family.IPV6)
LOOK = Look(Dirty.ALL)


def _nobody(_: Serving) -> None:
    """Nobody waits."""


class FakeState:
    """Of `State` what passes use, on an engine in memory."""

    def __init__(self) -> None:
        kernel = FakeKernel()
        kernel.set_link("w0")
        table = PrefixTable(b"secret").with_only([PREFIX])
        classes = {0: ClassPolicy(0, "unclassified")}
        self.engine = Engine(kernel, FakeDatapath(), NUMBERS, table, classes)
        self.datapath = SimpleNamespace(live=dict)
        self.events = EventLog()
        self.delegations = Delegations()
        self.handovers = unwritten()
        self.held = ()
        self.troubles: dict[str, str] = {}
        self.unfinished = False
        self.is_behind, self.is_settled = False, True
        self.done: list[object] = []
        self.error: Exception | None = None

    def converge(
        self,
        dirty: Dirty,
        serving: Callable[[], object],
        gives_way: Callable[[], bool] = lambda: False,
    ) -> None:
        self.done.append(dirty)
        if self.error is not None:
            raise self.error
        self.engine.converge(serving, gives_way)

    def correct_counts(self) -> None:
        self.done.append("counts")

    def free_numbers(self) -> None:
        self.done.append("numbers")

    def record_usage(self) -> None:
        self.done.append("usage")


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> FakeState:
    monkeypatch.setattr(passes, "Garbage", lambda: SimpleNamespace(tidy=lambda: None))
    monkeypatch.setattr(passes, "Bulletin", lambda state: SimpleNamespace(tell=lambda now: None))
    quiet = SimpleNamespace(find=lambda: None, look=lambda again: None)
    monkeypatch.setattr(passes, "MptcpEndpoints", lambda state: quiet)
    monkeypatch.setattr(passes, "sockets", list)
    return FakeState()


def _passes(state: Any) -> Passes:
    return Passes(state, lambda address: None, lambda answer: None, lambda event: None)


def _offered(
    hands: Passes, look: Look = LOOK, serving: Callable[[Serving], None] = _nobody
) -> Offered:
    found = hands.look(look, serving)
    assert isinstance(found, Offered)
    return found


def test_the_first_pass_must_work_and_later_ones_may_fail(state: FakeState) -> None:
    state.error = KernelError("nothing goes")
    hands = _passes(state)
    with pytest.raises(KernelError):
        hands.look(LOOK, _nobody)
    state.error = None
    assert _offered(hands).usable
    state.error = KernelError("nothing goes")
    assert not _offered(hands).own_fault
    assert state.troubles == {"putting things right": "nothing goes"}
    state.error = RuntimeError("a bug")
    assert _offered(hands).own_fault
    state.error = None
    assert not _offered(hands).own_fault
    assert not state.troubles


def test_it_looks_at_what_is_dirty_and_counts_sockets_and_numbers_with_all_else(
    state: FakeState,
) -> None:
    hands = _passes(state)
    hands.look(Look(Dirty.CGROUPS), _nobody)
    assert state.done == [Dirty.CGROUPS]
    hands.look(Look(Dirty.ALL, resync=True), _nobody)
    assert state.done[1:] == [Dirty.ALL, "counts", "numbers", "usage"]


def test_it_says_what_sockets_are_given(state: FakeState) -> None:
    said = _offered(_passes(state))
    assert said.offers[WANT] in NET
    assert said.ready == {3}


def test_what_the_kernel_lost_is_not_offered(state: FakeState) -> None:
    hands = _passes(state)
    hands.look(LOOK, _nobody)
    (address,) = state.engine.table.addresses_of(3)
    state.engine.kernel.vanish(address, "lo")  # type: ignore[attr-defined]
    state.engine.host = state.engine.kernel.read()
    state.error = KernelError("nothing goes")
    said = _offered(hands)
    assert not said.offers and not said.ready


def test_a_prefix_is_in_use_by_sockets_by_counts_and_as_long_as_that_is_not_known(
    state: FakeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = _passes(state)
    ended = Look(Dirty.ALL, ended=frozenset({3}))
    assert not _offered(hands, ended).unused, "it may still be given"
    hands.project((replace(PREFIX, lingering=True),), {})
    assert _offered(hands, ended).unused == {3}
    address = ip_address("2001:db8:1::1")
    monkeypatch.setattr(passes, "sockets", lambda: [SimpleNamespace(local=address, remnant=False)])
    assert not _offered(hands, ended).unused
    monkeypatch.setattr(passes, "sockets", list)
    state.datapath.live = lambda: {LiveKey(address, 1, WANT[0]): 1}
    assert not _offered(hands, ended).unused

    def fail() -> None:
        raise KernelError("no memory")

    monkeypatch.setattr(passes, "sockets", fail)
    assert not _offered(hands, ended).unused


def test_who_waits_hears_of_an_address_before_the_pass_ends(state: FakeState) -> None:
    """By then the row is written, and the address ready: the rest of the pass only looks."""
    heard: list[tuple[Serving, int]] = []

    def serving(said: Serving) -> None:
        heard.append((said, reads))

    reads, read = 0, state.engine.kernel.read

    def counted() -> HostState:
        nonlocal reads
        reads += 1
        return read()

    state.engine.kernel.read = counted  # type: ignore[method-assign]
    offered = _offered(_passes(state), serving=serving)
    [(said, when)] = heard
    assert said.offers == offered.offers and said.offers.keys() == {WANT}
    assert when < reads


def test_nobody_hears_of_an_address_whose_row_could_not_be_written(state: FakeState) -> None:
    def refuse(_: KernelAction) -> None:
        raise KernelError("no room")

    state.engine.kernel.fault = refuse  # type: ignore[attr-defined]
    heard: list[Serving] = []
    assert not _offered(_passes(state), serving=heard.append).offers
    assert not heard


def test_what_connects_from_a_prefix_that_has_waited_in_vain_is_ended(
    state: FakeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ended = _passes(state), list[object]()
    monkeypatch.setattr(passes, "end_connecting", ended.append)
    lost = replace(PREFIX, attached=False, unconfirmed=True)
    waiting = replace(lost, stands_in=True)
    for before, after, is_in_vain in (
        (waiting, waiting, False),
        (waiting, PREFIX, False),
        (PREFIX, lost, False),
        (waiting, lost, True),
        (waiting, None, True),
    ):
        state.engine.table = state.engine.table.with_only([before])
        made.project(() if after is None else (after,), {})
        assert not ended
        made.look(LOOK, _nobody)
        assert ended == ([NET] if is_in_vain else [])
        ended.clear()


def test_a_pass_is_interrupted_when_something_is_there_for_a_source(state: FakeState) -> None:
    hands, anything = _passes(state), lambda: True
    assert isinstance(hands.look(LOOK, _nobody, anything), Offered), "the first one never is"
    hands.project((replace(PREFIX, network=OTHER, spans=(OTHER,)),), {})
    assert hands.look(LOOK, _nobody, anything) == Interrupted(Dirty.ALL)
    for whole in (Look(Dirty.ALL, whole=True), Look(Dirty.ALL, resync=True)):
        assert isinstance(hands.look(whole, _nobody, anything), Offered)


def test_links_are_told_to_sources_while_a_pass_goes_on(
    state: FakeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands, told = _passes(state), list[HostState]()
    hands.look(LOOK, _nobody)
    monkeypatch.setattr(state.delegations, "look", told.append)
    assert isinstance(hands.look(LOOK, _nobody, lambda: bool(told)), Interrupted)
    assert told == [state.engine.host]
