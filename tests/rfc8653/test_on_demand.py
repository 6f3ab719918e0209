"""S7, D2-D4: a type that is asked for and not there is requested; nothing is requested unasked."""

import errno
import time
from collections.abc import Iterator

import pytest

from odm_agent.control.client import ControlClient
from odm_agent.core.model import AddressType, Family
from tests.lab.asking import AskingWorld, granted, refused
from tests.lab.client import Kind, ask, call, exchange, outcome
from tests.lab.host import NONPERSISTENT, SESSION, prefix_of
from tests.lab.process import wait_until

_KINDS = [Kind.TCP6, Kind.TCP4, Kind.MPTCP6, Kind.UDP6, Kind.SENDTO6, Kind.SENDTO4]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AskingWorld]:
    """A network that has nothing yet."""
    with AskingWorld(tmp_path_factory.mktemp("asking")) as made:
        yield made


@pytest.fixture
def fresh(shared: AskingWorld) -> Iterator[AskingWorld]:
    """Nothing was given, and in the end nothing is."""
    shared.told()
    yield shared
    shared.script()
    shared.withdraw()


def _connects(world: AskingWorld, name: str, kind: Kind, type: AddressType) -> str:
    """The outcome of a whole application in a class."""
    return world.place(name).do(lambda: outcome(lambda: call(kind, type)))


def test_S7_nothing_is_requested_that_no_application_asks_for(shared: AskingWorld) -> None:
    """Neither at the start, nor by sockets of no class, nor for types that are there."""
    shared.told()
    for name, kind in (("plain", Kind.TCP6), ("asking", Kind.TCP6), ("fixed", Kind.TCP4)):
        assert _connects(shared, name, kind, AddressType.UNSPECIFIED) == "ok"
    assert shared.agent.reload().returncode == 0
    time.sleep(0.5)
    assert shared.told() == []


@pytest.mark.parametrize("kind", _KINDS, ids=lambda each: each.name)
def test_D2_D4_a_type_that_is_not_there_is_requested_and_then_used(
    fresh: AskingWorld, kind: Kind
) -> None:
    """To say which type it needs is the request: a call fails until that is granted, if it comes so
    soon.
    """
    fresh.script(granted(SESSION, kind.family))
    place = fresh.place("asking")

    def application() -> str:
        with kind.open() as sock:
            ask(sock, SESSION)
            for _ in range(1000):
                try:
                    return exchange(sock, kind).seen
                except OSError as error:
                    if error.errno != errno.EADDRNOTAVAIL:
                        raise
                    time.sleep(0.02)
            return "never"

    seen = place.do(application)
    assert seen in prefix_of(SESSION, kind.family)
    assert fresh.told() == [f"request session-lasting/{kind.family}"]


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.SENDTO4], ids=lambda each: each.name)
def test_D2_D9_a_default_is_a_request_too(fresh: AskingWorld, kind: Kind) -> None:
    """Of a socket that says nothing, in a class with a default type."""
    fresh.script(granted(SESSION, kind.family))
    assert _connects(fresh, "default", kind, AddressType.UNSPECIFIED) == "EADDRNOTAVAIL"
    wait_until(
        lambda: _connects(fresh, "default", kind, AddressType.UNSPECIFIED) == "ok", "an address", 20
    )
    assert fresh.told() == [f"request session-lasting/{kind.family}"]


def test_D8_who_may_not_have_a_type_makes_nobody_request_it(shared: AskingWorld) -> None:
    """Refused before, and in audit too, where the socket goes on without it."""
    shared.told()
    assert _connects(shared, "fixed", Kind.TCP6, SESSION) == "EACCES"
    assert _connects(shared, "plain", Kind.TCP6, SESSION) == "EACCES"
    _connects(shared, "audited", Kind.TCP6, SESSION)
    _connects(shared, "audited", Kind.TCP6, AddressType.UNSPECIFIED)
    time.sleep(0.5)
    assert shared.told() == []


def test_D3_a_request_that_fails_is_an_error_with_its_cause(fresh: AskingWorld) -> None:
    """An errno at the socket; in log, events and metrics the cause, once however often asked."""
    fresh.script(refused(NONPERSISTENT, Family.IPV6, "no prefix is left", delay_s=0.1))
    for _ in range(20):
        assert _connects(fresh, "asking", Kind.TCP6, NONPERSISTENT) == "EADDRNOTAVAIL"
        time.sleep(0.1)
    assert 1 <= len(fresh.told()) <= 3
    with ControlClient(fresh.agent.socket) as client:
        events = [e for e in client.call("events")["events"] if e["event"] == "failed"]
    assert [(e["type"], e["detail"]) for e in events] == [
        ("nonpersistent", "IPv6: no prefix is left")
    ]
    log = fresh.agent.log.read_text()
    assert log.count("a request failed") == 1 and "no prefix is left" in log
    sample = 'odm_requests_total{family="ipv6",outcome="refused",type="nonpersistent"}'
    assert sample in fresh.agent.metrics()


def test_A2_a_class_may_not_request_more_often_than_its_cap(fresh: AskingWorld) -> None:
    """Neither by the option, nor by its default."""
    fresh.script(granted(SESSION, Family.IPV6, delay_s=1.0))
    for type_ in (AddressType.UNSPECIFIED, SESSION):
        outcomes = {_connects(fresh, "capped", Kind.TCP6, type_) for _ in range(5)}
        assert outcomes <= {"EADDRNOTAVAIL", "EDQUOT", "ok"}
    wait_until(lambda: _connects(fresh, "asking", Kind.TCP6, SESSION) == "ok", "an address", 20)
    assert fresh.told() == ["request session-lasting/6"]


def test_D2_many_sockets_make_one_request(fresh: AskingWorld) -> None:
    """A thousand at once."""
    fresh.script(granted(SESSION, Family.IPV6, delay_s=1.0))

    def application() -> int:
        sockets = [Kind.TCP6.open() for _ in range(1000)]
        for sock in sockets:
            ask(sock, SESSION)
        for sock in sockets:
            sock.close()
        return len(sockets)

    assert fresh.place("asking").do(application) == 1000
    wait_until(lambda: _connects(fresh, "asking", Kind.TCP6, SESSION) == "ok", "an address", 20)
    assert fresh.told() == ["request session-lasting/6"]
