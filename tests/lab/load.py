"""Applications under way: many sockets a second from several classes, each answer checked.

Nothing may fail, not once: every exchange has the source that it should, every refusal its errno.
"""

import os
import pickle
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from odm_agent.core.model import AddressType
from tests.lab.client import Kind, ask, exchange, outcome
from tests.lab.host import FIXED, NONPERSISTENT, SESSION, type_of
from tests.lab.place import Place
from tests.lab.process import enter_netns
from tests.lab.world import World

UNTYPED: Final = AddressType.UNSPECIFIED
KINDS: Final = (Kind.TCP6, Kind.UDP6, Kind.TCP4, Kind.UDP4, Kind.SENDTO6, Kind.SENDTO4)


@dataclass(frozen=True)
class Job:
    """What a process of a class does again and again.

    `expect`: the type of the source that the peer sees, or the errno's word of a refusal.
    """

    place: str
    expect: AddressType | str
    asked: AddressType = UNTYPED
    #: Bind to the class's forbidden address of this type first.
    bind: AddressType = UNTYPED


#: Typed by default, untyped, and refused.
BY_CLASS: Final = (
    Job("fixed", FIXED),
    Job("brief", NONPERSISTENT),
    Job("session", SESSION),
    Job("plain", UNTYPED),
    Job("nothing", "EACCES", bind=FIXED),
)
#: And asked for by the socket itself.
ALL: Final = (
    *BY_CLASS,
    Job("every", SESSION, asked=SESSION),
    Job("limited", "EACCES", asked=FIXED),
)


@dataclass
class Tally:
    """What all processes saw: how many rounds were right, and what was not."""

    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)


@contextmanager
def under_load(world: World, jobs: Sequence[Job] = ALL) -> Iterator[Tally]:
    """Run the jobs beside the test, one process each; the tally is complete afterwards."""
    tally = Tally()
    with ExitStack() as stack:
        children = [stack.enter_context(_child(world.place(job.place), world, job)) for job in jobs]
        yield tally
        for pid, reader in children:
            os.kill(pid, signal.SIGTERM)
            with os.fdopen(reader, "rb", closefd=False) as pipe:
                data = pipe.read()
            assert data, "a process of the load died"
            right, wrong = pickle.loads(data)
            tally.right += right
            tally.wrong += wrong


@contextmanager
def _child(place: Place, world: World, job: Job) -> Iterator[tuple[int, int]]:
    names = {kind: world.address(job.bind, kind.family) if job.bind else None for kind in KINDS}
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            place.cgroup.procs.write_text("0")
            enter_netns(place.netns.path)
            data = pickle.dumps(_work(job, names))
            os.write(writer, data)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        yield pid, reader
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _work(job: Job, names: dict[Kind, str | None]) -> tuple[int, Counter[str]]:
    """Until SIGTERM."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    right, wrong = 0, Counter[str]()
    while not ended:
        for kind in KINDS:
            got = _one(kind, job, names[kind])
            if got == job.expect:
                right += 1
            else:
                wrong[f"{job.place} {kind.name}: {got!r}"] += 1
            time.sleep(0.002)  # two cores: the agent must get a turn
    return right, wrong


def _one(kind: Kind, job: Job, bind: str | None) -> AddressType | str:
    seen: list[AddressType] = []

    def application() -> None:
        with kind.open() as sock:
            if kind.stream:  # no TIME_WAIT: there are but so many ports
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if job.asked:
                ask(sock, job.asked)
            if bind is not None:
                sock.bind((kind.spell(bind), 0))
            seen.append(type_of(exchange(sock, kind).seen))

    result = outcome(application)
    return seen[0] if seen else result
