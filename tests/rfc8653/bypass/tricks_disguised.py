"""Calls that a friend on the other side disguises: does the check of SYNs still know them?"""

import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from tests.lab.host import CORRESPONDENT
from tests.lab.place import Ready
from tests.rfc8653.bypass.packets import syn
from tests.rfc8653.bypass.technique import SIX, Act, Stage, Technique, refused
from tests.rfc8653.bypass.tricks_servers import cookies

GROUP: Final = "Calls in disguise"

_PORT: Final = 27006
_FRAGMENT: Final = 44
_OPTIONS: Final = 60
#: A packet in one fragment (RFC 6946), whose header the kernel leaves where it is.
_ATOMIC: Final = ((_FRAGMENT, bytes(7)),)
#: The same with a byte set that is reserved, and would be a length in other headers.
_ATOMIC_LONG: Final = ((_FRAGMENT, b"\x07" + bytes(6)),)
#: More headers than anybody has a use for; each holds four bytes of padding.
_MANY: Final = ((_OPTIONS, b"\x00\x01\x04" + bytes(4)),) * 12


def _called(extensions: Sequence[tuple[int, bytes]]) -> Act:
    """A listener on the wildcard that answers by SYN cookies, and one SYN in disguise."""

    def act(stage: Stage) -> str:
        def server(ready: Ready) -> None:
            with stage.tcp() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("::", _PORT))
                sock.listen(4)
                ready(None)
                time.sleep(20)

        packet = syn(CORRESPONDENT[stage.form.family], stage.plain, _PORT, extensions)

        def friend() -> None:
            with stage.raw(socket.IPPROTO_RAW) as sock:
                sock.sendto(packet, (stage.plain, 0))
                time.sleep(0.1)

        with ExitStack() as stack:
            stack.enter_context(cookies(stage))
            stack.enter_context(stage.place.background(stage.beside(server)))
            stage.world.site.c.fork(friend)
        return "no call"

    return act


_SYN_REFUSED: Final = refused("ingress", "no call")

TECHNIQUES: Final = tuple(
    Technique(slug, words, _called(extensions), _SYN_REFUSED, SIX)
    for slug, words, extensions in (
        ("syn-fragment", "a SYN in a packet of one fragment, answered by a SYN cookie", _ATOMIC),
        (
            "syn-fragment-long",
            "the same, the fragment header's reserved byte set",
            _ATOMIC_LONG,
        ),
        ("syn-extensions", "a SYN behind a dozen extension headers, answered the same way", _MANY),
    )
)
