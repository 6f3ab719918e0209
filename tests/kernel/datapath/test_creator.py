"""Who asked for a type must be allowed to use it, too, not only who uses the socket later."""

import errno
import time
from dataclasses import replace

import pytest

from tests.lab.client import Kind, ask, call, outcome
from tests.lab.host import FIXED, NONPERSISTENT
from tests.lab.place import Ready
from tests.lab.world import STANDARD, World


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4])
def test_type_whose_asker_may_use_it_no_more_is_refused_to_one_who_may(
    world: World, kind: Kind
) -> None:
    """A reload takes the type from the asker's class; the caller's class still has it."""
    other = world.place("every").cgroup.procs

    def application(ready: Ready) -> None:
        with kind.open() as refused, kind.open() as allowed:
            ask(refused, FIXED)
            ask(allowed, NONPERSISTENT)
            ready("asked")
            while outcome(lambda: call(kind, FIXED)) != "EACCES":
                time.sleep(0.01)  # until the reload
            other.write_text("0")
            told = refused.connect_ex(kind.destination), allowed.connect_ex(kind.destination)
            ready(told)

    both = replace(STANDARD.classes["limited"], allow=(NONPERSISTENT, FIXED))
    agent = world.agent
    try:
        agent.configure(replace(STANDARD, classes={**STANDARD.classes, "limited": both}))
        assert agent.reload().returncode == 0
        with world.place("limited").conversation(application) as talk:
            assert talk.hear() == "asked"
            agent.configure(STANDARD)
            assert agent.reload().returncode == 0
            assert talk.hear() == (errno.EACCES, 0)
    finally:
        agent.configure(STANDARD)
        assert agent.reload().returncode == 0
