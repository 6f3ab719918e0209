"""S4, D2: an application asks for an address of the network that the host is attached to now."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from odm_agent import client, waiting
from odm_agent.core.model import Family
from tests.lab.asking import AskingWorld, granted
from tests.lab.client import Kind, exchange, outcome
from tests.lab.host import NONPERSISTENT, SESSION, LabPrefix, prefix_of
from tests.lab.process import wait_until

#: What the network gives first, and what another one gives: by another uplink.
_FORMER: Final = prefix_of(SESSION, Family.IPV6)
_PRESENT: Final = prefix_of(NONPERSISTENT, Family.IPV6)
_KINDS: Final = [Kind.TCP6, Kind.MPTCP6, Kind.UDP6, Kind.SENDTO6]


def _lies_in(prefix: LabPrefix, seen: str) -> bool:
    """Whether an application was seen there, and was not told that there is no address."""
    return seen != "EADDRNOTAVAIL" and seen in prefix


class Moved(AskingWorld):
    """A host that holds a prefix, and is attached to another network now."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        try:
            self._move()
        except BaseException:
            self.close()
            raise

    def _move(self) -> None:
        self.script(granted(SESSION, Family.IPV6))
        wait_until(lambda: _lies_in(_FORMER, self.seen(Kind.TCP6)), "a prefix", 20)
        assert _lies_in(_FORMER, self.seen(Kind.TCP6, on_net=True)), (
            "where it is, it is of the network"
        )
        self.script()
        self.told()
        self.file.with_suffix(".unconfirmed").touch()
        wait_until(
            lambda: self.seen(Kind.TCP6, on_net=True) == "EADDRNOTAVAIL", "it is not any more", 20
        )

    def seen(self, kind: Kind, *, on_net: bool = False) -> str:
        """From where an application is seen, or what it is told."""

        def application() -> str:
            found = []
            with kind.open() as sock:
                client.set_type(sock, SESSION, on_net=on_net)
                told = outcome(lambda: found.append(exchange(sock, kind).seen))
            return found[0] if found else told

        return self.place("asking").do(application)

    def arrive(self) -> None:
        """The present network gives a prefix, too."""
        self.script(
            granted(
                SESSION,
                Family.IPV6,
                network=str(_PRESENT.network),
                interface=_PRESENT.interface,
                gateway=str(_PRESENT.gateway),
                instance="/2",
            )
        )


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    """The present network has given nothing yet."""
    with Moved(tmp_path_factory.mktemp("moved")) as made:
        yield made


@pytest.mark.parametrize("kind", _KINDS, ids=lambda each: each.name)
def test_S4_an_address_of_another_network_is_none(moved: Moved, kind: Kind) -> None:
    """Who asks for the type alone goes on with what is held."""
    assert moved.seen(kind, on_net=True) == "EADDRNOTAVAIL"
    assert _lies_in(_FORMER, moved.seen(kind))


def test_D2_one_is_requested_of_the_present_network_once_for_all_who_ask(moved: Moved) -> None:
    told: list[str] = []

    def requested() -> bool:
        moved.seen(Kind.TCP6)
        moved.seen(Kind.TCP6, on_net=True)
        told.extend(moved.told())
        return bool(told)

    wait_until(requested, "a request", 10)
    for kind in _KINDS:
        moved.seen(kind, on_net=True)
    assert [*told, *moved.told()] == ["request session-lasting/6 on-net"]


def test_D2_S4_what_the_present_network_gives_is_used_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By setsc(), which has waited for it, and by plain calls; also when the agent is dead."""

    def waits() -> str:
        with Kind.TCP6.open() as sock:
            told = client.setsc(sock, SESSION, timeout_s=15, on_net=True)
            sock.bind((str(told), 0))
            assert exchange(sock, Kind.TCP6).seen == str(told)
            return str(told)

    with Moved(tmp_path) as moved:
        monkeypatch.setenv("ODM_WAIT_SOCKET", str(moved.agent.wait_socket))
        moved.arrive()
        assert moved.place("asking").do(waits) in _PRESENT
        for _ in range(2):
            for kind in _KINDS:
                assert _lies_in(_PRESENT, moved.seen(kind, on_net=True))
            assert _lies_in(_FORMER, moved.seen(Kind.TCP6)), "it is held still, and comes first"
            moved.agent.sigkill()


def test_D3_the_agent_says_of_no_other_address_that_it_has_come(
    moved: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held of the type would end the wait of who asks for the type alone."""

    def waits() -> waiting.Said:
        with Kind.TCP6.open() as sock:
            client.set_type(sock, SESSION, on_net=True)
            prospect = waiting.prospect(sock, client.SOCKOPT)
            assert prospect is not None and prospect.ticket
            return waiting.wait(prospect.ticket, 1.0)[0]

    monkeypatch.setenv("ODM_WAIT_SOCKET", str(moved.agent.wait_socket))
    assert moved.place("asking").do(waits) is waiting.Said.LATE


@pytest.mark.parametrize("reachable", [True, False], ids=["agent", "no agent"])
def test_D3_setsc_tells_that_the_present_network_gives_none(
    moved: Moved, monkeypatch: pytest.MonkeyPatch, reachable: bool
) -> None:
    if reachable:
        monkeypatch.setenv("ODM_WAIT_SOCKET", str(moved.agent.wait_socket))

    def waits() -> str:
        with Kind.TCP6.open() as sock:
            begun_s = time.monotonic()
            told = outcome(lambda: client.setsc(sock, SESSION, timeout_s=1, on_net=True))
            assert time.monotonic() - begun_s >= 1 and not client.get_type(sock)
            return told

    assert moved.place("asking").do(waits) == "ETIMEDOUT"
