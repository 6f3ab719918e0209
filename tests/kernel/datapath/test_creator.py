"""Who asked for a type must be allowed to use it, too, not only who uses the socket later."""

import errno

import pytest

from tests.lab.client import Kind, ask
from tests.lab.host import FIXED, NONPERSISTENT
from tests.lab.world import World


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4])
def test_type_asked_for_by_a_class_that_may_not_is_refused_to_one_that_may(
    world: World, kind: Kind
) -> None:
    """A class in audit may ask for anything (it is counted); that must not rub off."""
    other = world.place("every").cgroup.procs

    def attempt() -> tuple[int, int]:
        with kind.open() as refused, kind.open() as allowed:
            ask(refused, FIXED)
            ask(allowed, NONPERSISTENT)
            other.write_text("0")
            return refused.connect_ex(kind.destination), allowed.connect_ex(kind.destination)

    assert world.place("audited").do(attempt) == (errno.EACCES, 0)
