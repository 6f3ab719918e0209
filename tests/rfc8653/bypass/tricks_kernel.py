"""What the kernel sends from a typed address by itself: answers without an application's data."""

import socket
from collections.abc import Callable
from typing import Final

from tests.rfc8653.bypass.packets import echo_request
from tests.rfc8653.bypass.technique import DATA, Act, Expect, Form, Result, Stage, Technique

GROUP: Final = "The kernel's own packets"

_CLOSED_PORT: Final = 27099


def _asked(ask: Callable[[Stage], object]) -> Act:
    """The correspondent asks the typed address; nobody on the host has a part in it."""

    def act(stage: Stage) -> str:
        stage.world.site.c.fork(lambda: ask(stage))
        return "ok"

    return act


def _call(stage: Stage) -> None:
    with stage.tcp() as sock:
        try:
            sock.connect((stage.plain, _CLOSED_PORT))
        except OSError:
            return


def _datagram(stage: Stage) -> None:
    with stage.udp() as sock:
        sock.connect((stage.plain, _CLOSED_PORT))
        sock.send(DATA)
        try:
            sock.recv(64)
        except OSError:
            return


def _ping(stage: Stage) -> None:
    protocol = socket.IPPROTO_ICMPV6 if stage.form is Form.IPV6 else socket.IPPROTO_ICMP
    with stage.raw(protocol) as sock:
        sock.sendto(echo_request(stage.form), (stage.plain, 0))
        sock.recv(1024)


_OWN: Final = Expect(Result.KERNELS)
_ITSELF: Final = "no class has a part in it"

TECHNIQUES: Final = tuple(
    Technique(slug, words, _asked(ask), _OWN, needs="-", no_control=_ITSELF, kernels=True)
    for slug, words, ask in (
        ("reset", "a TCP connection to a closed port of the typed address", _call),
        ("unreachable", "a UDP datagram to a closed port of the typed address", _datagram),
        ("echo-reply", "an ICMP echo request to the typed address", _ping),
    )
)
