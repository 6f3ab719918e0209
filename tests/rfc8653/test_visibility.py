"""A3: refusals are seen in the metrics."""

from collections.abc import Callable

from tests.lab.client import Kind, ask, call, outcome, source_cmsg
from tests.lab.host import (
    FIXED,
    SESSION,
)
from tests.lab.metrics import verdicts
from tests.lab.world import PLAIN, World


def test_A3_each_refusal_is_counted_by_class_type_and_reason(world: World) -> None:
    def refused(action: Callable[[], object]) -> None:
        assert world.place("nothing").do(lambda: outcome(action)) == "EACCES"

    kind = Kind.UDP6
    source = world.address(FIXED, kind.family)
    by_cmsg = source_cmsg(source)

    def set_type() -> None:
        with kind.open() as sock:
            ask(sock, FIXED)

    def send() -> None:
        with kind.open() as sock:
            sock.sendmsg([b"x"], by_cmsg, 0, kind.destination)

    for action in (set_type, lambda: call(kind, bind=(source, 0)), send):
        before = verdicts(world, "nothing")
        refused(action)
        assert verdicts(world, "nothing") == before + 1


def test_A3_refusals_of_unclassified_sockets_and_at_egress_are_counted(world: World) -> None:
    source = world.address(FIXED, Kind.TCP6.family)
    before = verdicts(world, "unclassified")
    assert world.place(PLAIN).do(lambda: outcome(lambda: call(Kind.TCP6, bind=(source, 0))))
    assert verdicts(world, "unclassified") == before + 1


def test_A3_assignments_are_counted_too(world: World) -> None:
    before = verdicts(world, "session", verdict="assign", type=SESSION)
    world.place("session").do(lambda: call(Kind.TCP6))
    assert verdicts(world, "session", verdict="assign", type=SESSION) > before
