"""L1, L3, L4: lifetimes in seconds, and what sockets are given when one has ended."""

import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Final

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab.agent import LabClass, Settings
from tests.lab.cases import each_kind
from tests.lab.client import Kind, call, talker
from tests.lab.host import (
    GRACEFUL,
    NONPERSISTENT,
    SESSION,
    prefix_of,
    type_of,
)
from tests.lab.process import wait_until
from tests.lab.world import STANDARD, World

#: Short enough to be waited for, long enough for a slow machine to do something before.
_PREFERRED_S: Final = 8
_VALID_S: Final = 12
_SETTINGS: Final[Settings] = replace(
    STANDARD,
    classes={
        "session": LabClass(allow=(SESSION,), default=SESSION),
        "brief": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT),
        "graceful": LabClass(allow=(GRACEFUL,), default=GRACEFUL),
    },
    extra={
        **{
            each: {"preferred": f"{_PREFERRED_S}s", "valid": f"{_VALID_S}s"}
            for each in ("session6", "session4")
        },
        **{each: {"rotate": "5s"} for each in ("brief6", "brief4", "graceful6", "graceful4")},
    },
)
_TCP: Final = (Kind.TCP6, Kind.TCP4)
_BRIEF_TYPES: Final = {NONPERSISTENT: "brief", GRACEFUL: "graceful"}


@pytest.fixture
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose addresses end soon."""
    with World(tmp_path_factory.mktemp("mortal"), _SETTINGS) as made:
        yield made


def _told(world: World, type: AddressType, family: Family) -> list[dict[str, Any]]:
    name = prefix_of(type, family).name
    return [each for each in world.agent.read("lifetimes") if each["prefix"] == name]


def _boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _calls(kind: Kind, until_s: float) -> list[tuple[float, str]]:
    """When one connection after the other began, and from where it came, or the error."""
    calls = []
    while (now_s := _boot_s()) < until_s:
        try:
            calls.append((now_s, call(kind).seen))
        except OSError as error:
            calls.append((now_s, repr(error)))
        time.sleep(0.01)
    return calls


@pytest.mark.parametrize("alive", [True, False], ids=["agent", "no agent"])
@each_kind(*_TCP)
def test_L1_an_end_in_seconds_is_kept_also_while_the_agent_is_dead(
    mortal: World, kind: Kind, alive: bool
) -> None:
    """Nothing is given past its preferred lifetime, nothing leaves past its valid one."""
    place = mortal.place("session")
    with place.background(talker(kind)) as had, mortal.captures() as captures:
        [lease] = [x for x in _told(mortal, SESSION, kind.family) if x["address"] == had]
        told_s = _boot_s()
        if not alive:
            mortal.agent.sigkill()
        preferred_s = told_s + lease["preferred_seconds_left"]
        valid_s = told_s + lease["valid_seconds_left"]
        calls = place.do(lambda: _calls(kind, valid_s), timeout_s=60)
        assert any(source == had for _, source in calls)
        assert not [at_s for at_s, source in calls if source == had and at_s > preferred_s]
        time.sleep(0.5)
        captures.both()  # what was on its way
        time.sleep(1.5)
        assert ip_address(had) not in captures.both()


@each_kind(*_TCP)
def test_L3_after_a_lifetime_new_sockets_get_a_new_address_and_old_ones_go_on(
    mortal: World, kind: Kind
) -> None:
    """There is never a moment without an address, and never one past its time."""
    place = mortal.place("session")
    seen = place.do(lambda: _calls(kind, _boot_s() + 2.5 * _PREFERRED_S), timeout_s=60)
    assert {type_of(source) for _, source in seen} == {SESSION}
    began: list[tuple[float, str]] = []
    for at_s, source in seen:
        if not began or began[-1][1] != source:
            began.append((at_s, source))
        assert at_s < began[-1][0] + _PREFERRED_S + 0.1, "an address past its time"
    assert len(began) >= 3
    if kind is Kind.TCP6:  # a small IPv4 range gives its addresses again
        assert len({source for _, source in began}) == len(began)


@pytest.mark.parametrize("type", _BRIEF_TYPES, ids=lambda t: t.word)
@each_kind(*_TCP)
def test_L4_short_lived_types_are_renewed_without_being_asked(
    mortal: World, type: AddressType, kind: Kind
) -> None:
    """Nobody asks, nobody is refused, and an address goes with its last socket."""
    place = mortal.place(_BRIEF_TYPES[type])

    def rotated(before: str) -> bool:
        seen = place.do(lambda: call(kind).seen)
        assert type_of(seen) is type
        return seen != before

    with place.background(talker(kind)) as had:
        wait_until(lambda: rotated(had), "another address", 15)
        wait_until(
            lambda: (
                [x["phase"] for x in _told(mortal, type, kind.family) if x["address"] == had]
                == ["lingering"]
            ),
            "the old one lingers",
        )
        assert had in mortal.site.host.ip("address")
    wait_until(lambda: had not in mortal.site.host.ip("address"), "the old one is gone", 90)


def test_L4_what_is_renewed_by_default(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nonpersistent and graceful-replacement, once a day; the others never."""
    with World(tmp_path_factory.mktemp("default")) as world:
        told = world.agent.read("lifetimes")
    rotating = {each["type"] for each in told if each["rotates_in_seconds"] is not None}
    assert rotating == {NONPERSISTENT.word, GRACEFUL.word}
    for each in told:
        if each["rotates_in_seconds"] is not None:
            assert 0.8 * 86400 < each["rotates_in_seconds"] <= 86400
