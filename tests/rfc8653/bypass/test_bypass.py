"""S9: each technique tried by classes that may not, and once by one that may."""

from typing import Any, Final

import pytest

from odm_agent.core.model import AddressType
from tests.lab.host import NONPERSISTENT
from tests.lab.world import World
from tests.rfc8653.bypass.attempt import attempt, works
from tests.rfc8653.bypass.conftest import OUTSIDERS
from tests.rfc8653.bypass.table import CASES
from tests.rfc8653.bypass.technique import Form, Result, Technique

_OTHERS: Final = AddressType.FIXED


def _each(*, controlled: bool = False) -> pytest.MarkDecorator:
    cases = [case for case in CASES if not (controlled and case[0].no_control)]
    ids = [f"{technique.slug}-{form.value}" for technique, form in cases]
    return pytest.mark.parametrize(("technique", "form"), cases, ids=ids)


def world_for(request: pytest.FixtureRequest, technique: Technique) -> World:
    """The world that a technique needs."""
    found: World = request.getfixturevalue("older_world" if technique.older else "world")
    found.peer.seen()
    return found


@pytest.mark.parametrize("name", OUTSIDERS)
@_each()
def test_S9_A1_no_way_to_a_source_that_the_class_may_not_use(
    request: pytest.FixtureRequest,
    record_property: Any,
    technique: Technique,
    form: Form,
    name: str,
) -> None:
    """What is open is expected to be open: the page can't lie in either direction."""
    world = world_for(request, technique)
    expected = technique.expected(form)
    made = attempt(world, technique, form, name)
    record_property(
        "bypass",
        [technique.slug, form.value, name, made.hook, made.told, made.wire, made.result.name],
    )
    if expected.result is not Result.OPEN:
        assert not made.forbidden, "the wire has a source that the class may not use"
        seen = [each for each in world.peer.seen() if not technique.others]
        assert not any(each.source == world.address(_OTHERS, form.family) for each in seen)
    if made.result is Result.ABSENT:
        return  # a row of the page says so
    if name == "brief" and made.result is not expected.result:
        # A default type makes bound what was free; it may be refused earlier, never later.
        assert made.typed <= {NONPERSISTENT}
        return
    assert (made.result, made.hook, made.told) == (expected.result, expected.hook, expected.told)
    reasons = {reason for _, reason in made.refusals}
    if name == "brief" and technique.astray:
        assert reasons == {"uplink"}
    else:
        assert reasons <= {"class", "creator"}
    if name == "brief" and technique.own:
        assert made.typed == {NONPERSISTENT}, "a class with a default type gets that"
        assert not made.untyped


@_each(controlled=True)
def test_S9_technique_works_where_it_is_allowed(
    request: pytest.FixtureRequest, technique: Technique, form: Form
) -> None:
    """Else a row would say "refused" of a trick that never works."""
    assert works(world_for(request, technique), technique, form) is not False
