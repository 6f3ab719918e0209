"""A cgroup that had no class when it was looked at, and has one from a reload on."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from odm_agent.core.model import AddressType
from tests.lab.agent import LabClass
from tests.lab.cases import each_kind
from tests.lab.client import Kind, call, exchange, outcome
from tests.lab.host import FIXED, type_of
from tests.lab.place import Place, Ready
from tests.lab.process import wait_until
from tests.lab.world import CLASSES, STANDARD, World

_LATE: Final = replace(
    STANDARD, classes={**CLASSES, "late": LabClass(allow=(FIXED,), default=FIXED, strict=True)}
)


def _used(place: Place, kind: Kind) -> AddressType:
    return type_of(place.do(lambda: call(kind)).seen)


@each_kind(Kind.UDP6, Kind.UDP4)
def test_class_that_begins_counts_for_calls_and_packets_of_a_cgroup_that_had_none(
    tmp_path: Path, kind: Kind
) -> None:
    """What was noted of the cgroup when it had none holds no more: for new sockets, whose type is
    the class's, and for one from before, whose untyped source a strict class does not have.
    """
    with World(tmp_path) as world:
        place = world.place("late")
        assert _used(place, kind) is AddressType.UNSPECIFIED

        def talker(ready: Ready) -> None:
            with kind.open() as sock:
                exchange(sock, kind)
                ready("begun")
                while True:
                    ready(outcome(lambda: sock.send(b"x")))
                    time.sleep(0.05)

        with place.conversation(talker) as talk:
            assert talk.hear() == "begun"
            assert talk.hear() == "ok"
            world.agent.configure(_LATE)
            assert world.agent.reload().returncode == 0
            assert _used(place, kind) is FIXED
            wait_until(lambda: talk.hear() == "EPERM", "its packets count, too")
