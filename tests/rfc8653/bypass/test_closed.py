"""S9, A1: what the class option `refuse` closes of that which stays open else."""

from typing import Any

import pytest

from tests.lab.world import World
from tests.rfc8653.bypass.attempt import attempt
from tests.rfc8653.bypass.closed import NAME
from tests.rfc8653.bypass.table import CASES
from tests.rfc8653.bypass.technique import Form, Result, Technique

_CASES = [case for case in CASES if case[0].closed is not None]


@pytest.mark.parametrize(
    ("technique", "form"),
    _CASES,
    ids=[f"{technique.slug}-{form.value}" for technique, form in _CASES],
)
def test_S9_A1_class_option_closes(
    world: World, record_property: Any, technique: Technique, form: Form
) -> None:
    made = attempt(world, technique, form, NAME)
    record_property(
        "bypass",
        [technique.slug, form.value, NAME, made.hook, made.told, made.wire, made.result.name],
    )
    if made.result is Result.ABSENT:
        return
    assert technique.closed is not None
    if technique.closed.result is Result.OPEN:
        assert made.result is Result.OPEN, "the page can't lie in this direction either"
        return
    assert not made.forbidden
    assert made.hook == technique.closed.hook
    assert made.told in (technique.closed.told, "ok" if made.hook == "frames" else "EACCES")
