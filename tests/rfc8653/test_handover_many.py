"""T1-T4: a handover of a thousand live connections."""

import resource
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import TYPES
from tests.lab.host import NONPERSISTENT
from tests.lab.place import Ready
from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.netlab.plan import CORE
from tests.netlab.topology import NetLab
from tests.netlab.travelling import Order, Traveller

pytestmark = needs_root

_EACH: Final = 250
_PORT: Final = 7444
_FILES: Final = 4096
_PATIENCE_S: Final = 60.0


@pytest.fixture(scope="module")
def traveller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traveller]:
    _with_files()
    with Traveller(tmp_path_factory.mktemp("traveller")) as made, _echoing(made.lab):
        yield made


def _with_files() -> None:
    """Let this process have as many open files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, most), most))


@contextmanager
def _echoing(lab: NetLab) -> Iterator[None]:
    """The correspondent says again what it hears, on all connections at once."""

    def server() -> socket.socket:
        return socket.create_server(
            (str(CORE[1]), _PORT), family=socket.AF_INET6, backlog=len(TYPES) * _EACH
        )

    over = threading.Event()
    with lab.core.call(server) as listening, selectors.DefaultSelector() as selector:
        selector.register(listening, selectors.EVENT_READ)

        def serve() -> None:
            while not over.is_set():
                for key, _ in selector.select(0.1):
                    assert isinstance(key.fileobj, socket.socket)
                    if key.fileobj is listening:
                        selector.register(listening.accept()[0], selectors.EVENT_READ)
                        continue
                    with suppress(OSError):
                        if said := key.fileobj.recv(64):
                            key.fileobj.sendall(said)
                            continue
                    selector.unregister(key.fileobj)
                    key.fileobj.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()


def _connections(moved: Path, ready: Ready) -> None:
    """Open many, and tell what becomes of each when the host has moved."""
    _with_files()
    made = [socket.create_connection((str(CORE[1]), _PORT), timeout=10.0) for _ in range(_EACH)]
    ready(None)
    wait_until(moved.exists, "the host has moved", _PATIENCE_S)
    found = Counter[str]()
    for each in made:
        each.settimeout(_PATIENCE_S)
        try:
            each.sendall(b"after")
            found[each.recv(64).decode()] += 1
        except OSError as error:
            found[type(error).__name__] += 1
    ready(dict(found))


@pytest.mark.parametrize("order", Order, ids=lambda each: each.value)
def test_T1_T2_T3_T4_of_a_thousand_connections_each_keeps_its_promise(
    traveller: Traveller, tmp_path: Path, order: Order
) -> None:
    moved = tmp_path / "moved"
    with ExitStack() as stack:
        talks = {
            type: stack.enter_context(
                traveller.roamer.places[type.word].conversation(partial(_connections, moved))
            )
            for type in TYPES
        }
        for talk in talks.values():
            talk.hear(_PATIENCE_S)
        with traveller.moving(order) as move:
            traveller.await_attached(move.came)
            moved.touch()
            found = {type: talk.hear(_PATIENCE_S) for type, talk in talks.items()}
    assert found == {
        type: {"ConnectionAbortedError": _EACH} if type is NONPERSISTENT else {"after": _EACH}
        for type in TYPES
    }
