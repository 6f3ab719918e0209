"""D5: each class has an address of its own, whatever comes, ends, crashes, and comes back."""

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odm_agent.core.events import Granted, Rotated
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.lifetimes import Phase, Terms
from odm_agent.core.model import IPAddress, Seat, TypedPrefix
from tests.property.test_rotation import _NET4, _NET6, Host, _prefix

#: Seconds: a host that does other things, too, is slow, and that is no fault.
pytestmark = pytest.mark.timeout(600)

_CLASSES: Final = ("a", "b", "c", "d")


def _of(prefix: TypedPrefix, classes: frozenset[str], terms: dict[str, Terms]) -> TypedPrefix:
    seats = tuple(
        Seat(name, 10 + at, 20 + at, terms.get(name, prefix.terms))
        for at, name in enumerate(_CLASSES)
        if name in classes
    )
    return replace(prefix, by_class=True, seats=seats, pool=max(1, len(seats)))


class ByClass(Host):
    """A host of which each class has addresses of its own."""

    def reload(self, classes: frozenset[str]) -> None:
        """The configuration names these classes now."""
        self.prefix = _of(self.prefix, classes, {})
        self.put(Granted(Grant(GrantKey("static", "web"), self.prefix)))
        self.settle()

    def current(self) -> dict[str, IPAddress]:
        """The address that each class is given."""
        return self._in(Phase.CURRENT)

    def spares(self) -> dict[str, IPAddress]:
        """What each class goes over to while no agent runs."""
        return self._in(Phase.SPARE)

    def _in(self, phase: Phase) -> dict[str, IPAddress]:
        [row] = self.table
        found = [(e.class_name, a) for a, e in row.leases.items() if e.phase is phase]
        assert len(dict(found)) == len(found), "one of each class"
        return dict(found)


def _host(network: object, terms: Terms, classes: frozenset[str]) -> ByClass:
    return ByClass(_of(_prefix(network, terms), classes, {}))  # type: ignore[arg-type]


_SETS: Final = st.frozensets(st.sampled_from(_CLASSES))
_STEPS: Final = st.lists(
    st.one_of(
        _SETS,
        st.floats(0.1, 5000),
        st.sampled_from(["crash", "hold", "let go", "rotate"]),
    ),
    min_size=3,
    max_size=25,
)


@given(first=_SETS, steps=_STEPS, ends=st.booleans())
@settings(max_examples=60)
def test_no_address_is_ever_of_two_classes_and_each_class_has_one(
    first: frozenset[str], steps: list[frozenset[str] | float | str], ends: bool
) -> None:
    terms = Terms(preferred_s=7200, rotate_s=3600) if ends else Terms()
    classes, host = first, _host(_NET6, terms, first)
    owners: dict[IPAddress, str] = {}
    for step in steps:
        before = host.current()
        rotates = False
        match step:
            case frozenset():
                classes = step
                host.reload(classes)
            case float():
                rotates = True
                host.run(step, lambda: None)
            case "crash":
                host.begin()
            case "hold":
                host.held |= set(host.current().values())
            case "let go":
                host.held.clear()
                host.run(70, lambda: None)
                rotates = True
            case _:
                rotates = True
                [row] = host.table
                some = frozenset(e.id for e in row.prefix.addresses[:1]) if ends else frozenset()
                host.put(Rotated(some))
                host.settle()
        now = host.current()
        assert now.keys() == classes
        if not (rotates and ends):
            assert all(now[name] == before[name] for name in before.keys() & now.keys())
        [row] = host.table
        for address, lease in row.leases.items():
            assert owners.setdefault(address, lease.class_name) == lease.class_name
        assert set(host.spares()) <= classes


def test_a_class_that_comes_back_in_time_has_its_address_again() -> None:
    both, one = frozenset("ab"), frozenset("a")
    host = _host(_NET6, Terms(preferred_s=7200, rotate_s=3600), both)
    host.run(3550, lambda: None)  # the spares are there
    before = host.current()
    host.held |= set(before.values())
    host.reload(one)
    assert host.current() == {"a": before["a"]}
    host.reload(both)
    assert host.current() == before
    host.run(3600, lambda: None)
    after = host.current()
    assert after.keys() == before.keys()
    assert set(after.values()).isdisjoint(before.values()), "its successor was made anew"


def test_a_class_whose_address_nobody_had_begins_anew() -> None:
    both, one = frozenset("ab"), frozenset("a")
    host = _host(_NET6, Terms(rotate_s=3600), both)
    before = host.current()
    host.reload(one)
    host.run(70, lambda: None)
    [row] = host.table
    assert [each.class_name for each in row.prefix.addresses] == ["a"]
    host.reload(both)
    assert host.current()["a"] == before["a"]
    assert host.current()["b"] not in before.values()


def test_ipv4_addresses_are_of_one_class_at_a_time() -> None:
    """Those of a range come again, when nobody has them any more."""
    every = frozenset(_CLASSES)
    host = _host(_NET4, Terms(rotate_s=600, linger=4), every)
    for _ in range(40):
        host.run(600, lambda: None)
        assert host.current().keys() == every
        host.held = set(host.current().values())
        [row] = host.table
        assert len(set(row.addresses)) == len(row.addresses) == len(row.prefix.addresses)


def test_each_class_has_its_own_terms() -> None:
    prefix = _of(
        _prefix(_NET6, Terms(rotate_s=86400)),
        frozenset("ab"),
        {"a": Terms(rotate_s=600), "b": Terms()},
    )
    host = ByClass(prefix)
    before = host.current()
    host.run(3600, lambda: None)
    assert host.current()["b"] == before["b"]
    assert host.current()["a"] != before["a"]


def test_sharing_that_changes_lets_the_former_ones_linger() -> None:
    host = _host(_NET6, Terms(rotate_s=86400), frozenset("ab"))
    of_classes = set(host.current().values())
    host.held |= of_classes
    host.prefix = _prefix(_NET6, Terms(rotate_s=86400), 1)
    host.put(Granted(Grant(GrantKey("static", "web"), host.prefix)))
    host.settle()
    [row] = host.table
    phases = {a: each.phase for a, each in row.leases.items()}
    assert {a for a, phase in phases.items() if phase is Phase.LINGERING} == of_classes
    [shared] = [a for a, phase in phases.items() if phase is Phase.CURRENT]
    assert row.class_of(shared) == "" and shared not in of_classes


def test_a_spare_serves_its_own_class_alone() -> None:
    """Whichever was made first: here the other one's."""
    for name in "ab":
        host = _host(_NET6, Terms(rotate_s=3600), frozenset("ab"))
        while host.spares().keys() != {"a", "b"}:
            host.run(10, lambda: None)
        before, spares = host.current(), host.spares()
        [row] = host.table
        host.put(Rotated(frozenset({row.leases[before[name]].id})))
        host.settle()
        assert host.current() == {**before, name: spares[name]}
