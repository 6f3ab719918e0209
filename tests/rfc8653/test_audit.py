"""D8, S8: audit lifts what policy refuses, and never tells an application what is not so.

A type that the class may not use is answered as a stock kernel answers it: nobody heard. A type
that reads back is given, or the call fails, in audit as anywhere.
"""

import errno
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest

from odm_agent import client
from odm_agent.core.model import TYPES, AddressType
from tests.lab.agent import LabClass, Settings
from tests.lab.cases import each_kind
from tests.lab.client import Kind, ask, asked, call, exchange, outcome
from tests.lab.host import FIXED, GRACEFUL, NONPERSISTENT, PREFIXES, SESSION, type_of
from tests.lab.metrics import verdicts
from tests.lab.world import PLAIN, STANDARD, World

_SETTINGS: Final[Settings] = replace(
    STANDARD,
    unclassified="audit",
    # None of type graceful-replacement.
    prefixes=[prefix for prefix in PREFIXES if prefix.type is not GRACEFUL],
    classes={
        "audited": LabClass(allow=(NONPERSISTENT, GRACEFUL), mode="audit"),
        "lacking": LabClass(allow=TYPES, default=GRACEFUL, on_failure="closed", mode="audit"),
        "rated": LabClass(
            allow=(NONPERSISTENT,), mode="audit", caps={NONPERSISTENT: {"requests_per_minute": 1}}
        ),
        "every": LabClass(allow=TYPES),
        "off": LabClass(allow=TYPES, mode="off"),
    },
)
_ASKING: Final = (Kind.TCP6, Kind.TCP4, Kind.MPTCP6, Kind.MPTCP4, Kind.UDP6, Kind.UDP4)
_PLAIN_IP: Final = (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Classes in audit, and sockets of no class in audit, too."""
    with World(tmp_path_factory.mktemp("audit"), _SETTINGS) as made:
        yield made


def _answers(kind: Kind, type: AddressType, flags: int = 0) -> tuple[str, object]:
    """What a socket is told when it asks, and what it reads back."""
    with kind.open() as sock:
        told = outcome(lambda: ask(sock, type, flags))
        try:
            return told, asked(sock)
        except OSError as error:
            return told, errno.errorcode[error.errno or 0]


@pytest.mark.parametrize("flags", [0, 2], ids=["bare", "with-flags"])
@pytest.mark.parametrize("name", ["audited", PLAIN])
@each_kind(*_ASKING)
def test_D8_S8_audit_answers_a_type_that_is_not_allowed_as_a_stock_kernel_does(
    audit: World, kind: Kind, name: str, flags: int
) -> None:
    """The stock kernel is this host's own, asked from outside the cgroup of the programs."""
    stock = audit.site.host.call(lambda: _answers(kind, FIXED, flags))
    who = "unclassified" if name == PLAIN else name
    before = verdicts(audit, who, verdict="audit")
    assert audit.place(name).do(lambda: _answers(kind, FIXED, flags)) == stock
    assert verdicts(audit, who, verdict="audit") == before + 1


@each_kind(*_ASKING)
def test_D8_S8_the_client_module_says_not_supported_in_audit_and_the_socket_is_plain(
    audit: World, kind: Kind
) -> None:
    def application() -> tuple[bool, str]:
        with kind.open() as sock:
            try:
                client.set_type(sock, FIXED)
            except client.NotSupported:
                return False, exchange(sock, kind).seen
            return True, exchange(sock, kind).seen

    heard, seen = audit.place("audited").do(application)
    assert not heard
    assert type_of(seen) is AddressType.UNSPECIFIED


@each_kind(*_PLAIN_IP)
def test_D8_a_type_heard_before_stays_when_audit_does_not_hear_another(
    audit: World, kind: Kind
) -> None:
    def application() -> tuple[str, AddressType, str]:
        with kind.open() as sock:
            ask(sock, NONPERSISTENT)
            told = outcome(lambda: ask(sock, FIXED))
            return told, client.get_type(sock), exchange(sock, kind).seen

    told, read, seen = audit.place("audited").do(application)
    assert told == ("ok" if kind.af == socket.AF_INET6 else "ENOPROTOOPT")
    assert read is NONPERSISTENT
    assert type_of(seen) is NONPERSISTENT


@each_kind()
def test_D8_audit_gives_a_type_that_was_heard_or_fails(audit: World, kind: Kind) -> None:
    """There is no address of the type: a default goes on without, a request never."""
    place = audit.place("lacking")
    assert type_of(place.do(lambda: call(kind)).seen) is AddressType.UNSPECIFIED
    assert place.do(lambda: outcome(lambda: call(kind, GRACEFUL))) == "EADDRNOTAVAIL"
    bound = (kind.spell("0.0.0.0") if kind.mapped else kind.wildcard, 0)
    assert place.do(lambda: outcome(lambda: call(kind, GRACEFUL, bind=bound))) == "EADDRNOTAVAIL"


@each_kind(*_PLAIN_IP)
@pytest.mark.parametrize("type", [AddressType.UNSPECIFIED, SESSION], ids=lambda each: each.word)
def test_D8_audit_binds_no_socket_to_another_type_than_it_asked_for(
    audit: World, kind: Kind, type: AddressType
) -> None:
    other = audit.address(type, kind.family)
    told = audit.place("audited").do(
        lambda: outcome(lambda: call(kind, NONPERSISTENT, bind=(other, 0)))
    )
    assert told == "EADDRNOTAVAIL"


@each_kind(*_PLAIN_IP, Kind.SENDTO6, Kind.SENDTO4, Kind.MPTCP6)
def test_D8_a_type_that_another_class_was_granted_is_given_in_audit_and_counted(
    audit: World, kind: Kind
) -> None:
    """The socket reads its type back; so it leaves from there, whatever its caller's class may."""
    other = audit.place("audited").cgroup.procs

    def application() -> tuple[AddressType, str]:
        with kind.open() as sock:
            ask(sock, FIXED)
            other.write_text("0")
            return client.get_type(sock), exchange(sock, kind).seen

    before = verdicts(audit, "audited", verdict="audit")
    read, seen = audit.place("every").do(application)
    assert read is FIXED
    assert type_of(seen) is FIXED
    assert verdicts(audit, "audited", verdict="audit") > before


@each_kind(*_PLAIN_IP)
def test_D8_A2_audit_hears_a_request_over_its_rate_and_gives_the_type(
    audit: World, kind: Kind
) -> None:
    """The class may use the type: that it asks too often is counted, and takes nothing away."""

    def application() -> list[str]:
        return [call(kind, NONPERSISTENT).seen for _ in range(3)]

    before = verdicts(audit, "rated", verdict="audit", type=NONPERSISTENT)
    seen = audit.place("rated").do(application)
    assert {type_of(each) for each in seen} == {NONPERSISTENT}
    assert verdicts(audit, "rated", verdict="audit", type=NONPERSISTENT) > before


@pytest.mark.parametrize("name", ["off", PLAIN])
@each_kind(*_PLAIN_IP)
def test_S8_a_type_is_not_read_back_where_it_is_not_acted_upon(
    audit: World, kind: Kind, name: str
) -> None:
    """A socket with a type comes to a caller whose class is off, or who has none."""
    other = audit.place(name).cgroup.procs

    def application() -> tuple[AddressType, AddressType, str]:
        with kind.open() as sock:
            ask(sock, NONPERSISTENT)
            before = client.get_type(sock)
            other.write_text("0")
            return before, client.get_type(sock), exchange(sock, kind).seen

    before, read, seen = audit.place("every").do(application)
    assert before is NONPERSISTENT
    assert read is AddressType.UNSPECIFIED
    assert type_of(seen) is AddressType.UNSPECIFIED


def test_D8_S8_a_value_without_meaning_is_refused_in_audit_as_anywhere(audit: World) -> None:
    """No policy is in question: docs/api.md promises EINVAL to every class."""

    def application() -> list[str]:
        with Kind.TCP6.open() as sock:
            return [
                outcome(lambda value=value: sock.setsockopt(socket.IPPROTO_IPV6, 72, value))  # type: ignore[misc]
                for value in (7 << 16, 1 << 19, FIXED << 16 | 3)
            ]

    assert audit.place("audited").do(application) == ["EINVAL"] * 3
