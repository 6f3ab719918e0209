"""Sockets that are older than the agent: made, bound or connected before it was started."""

import array
import socket
from collections.abc import Callable, Iterable
from typing import Final

from tests.lab.host import FIXED, SESSION
from tests.lab.world import World
from tests.rfc8653.bypass.packets import spoofed
from tests.rfc8653.bypass.technique import (
    DATA,
    OPEN,
    PATIENCE_S,
    Act,
    Form,
    Stage,
    Technique,
    refused,
)
from tests.rfc8653.bypass.tricks_bind import transparent

GROUP: Final = "Sockets older than the agent"

Key = tuple[str, str, Form]
#: What was made before the start, by technique, class and form.
_made: Final[dict[Key, socket.socket]] = {}


def _unbound(stage: Stage) -> socket.socket:
    return stage.udp()


def _bound(stage: Stage) -> socket.socket:
    """Bound to an address that will be typed; nothing configures it, now or later."""
    sock = stage.udp()
    transparent(sock)
    sock.bind((stage.unused, 0))
    return sock


def _connected(stage: Stage) -> socket.socket:
    sock = _bound(stage)
    sock.connect(stage.to)
    return sock


def _raw(stage: Stage) -> socket.socket:
    return stage.raw(socket.IPPROTO_RAW)


_MAKERS: Final = {
    "older-raw": _raw,
    "older-unbound": _unbound,
    "older-bound": _bound,
    "older-connected": _connected,
}


def make_all(world: World, names: Iterable[str]) -> None:
    """Make every socket, each in its class, and keep it here; the agent isn't running yet."""
    for slug, make in _MAKERS.items():
        for name in names:
            for form in (Form.IPV6, Form.IPV4):
                type = SESSION if name == "every" else FIXED
                stage = Stage(world, name, form, "root", type, "", "")
                _made[slug, name, form] = _made_in(stage, make)


def forget_all() -> None:
    """Close them."""
    for each in _made.values():
        each.close()
    _made.clear()


def _made_in(stage: Stage, make: Callable[[Stage], socket.socket]) -> socket.socket:
    near, far = socket.socketpair()
    with near, far:

        def process() -> None:
            sock = make(stage)
            rights = array.array("i", [sock.fileno()])
            near.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

        stage.place.do(process)
        _, ((_, _, data),), _, _ = far.recvmsg(1, socket.CMSG_SPACE(4))
    sock = socket.socket(fileno=array.array("i", data)[0])
    sock.settimeout(PATIENCE_S)
    return sock


def _used(slug: str, use: Callable[[Stage, socket.socket], object]) -> Act:
    return lambda stage: stage.do(lambda: use(stage, _made[slug, stage.name, stage.form]))


def _bind_and_send(stage: Stage, sock: socket.socket) -> None:
    sock.bind((stage.source, 0))
    sock.sendto(DATA, stage.to)


TECHNIQUES: Final = (
    Technique(
        "older-unbound",
        "made before the agent started; then bind, sendto",
        _used("older-unbound", _bind_and_send),
        refused("bind"),
        older=True,
    ),
    Technique(
        "older-bound",
        "bound before the agent started; then sendto",
        _used("older-bound", lambda stage, sock: sock.sendto(DATA, stage.to)),
        refused("sendmsg"),
        needs="CAP_NET_ADMIN",
        older=True,
    ),
    Technique(
        "older-connected",
        "connected before the agent started; then send",
        _used("older-connected", lambda stage, sock: sock.send(DATA)),
        refused("egress", "EPERM"),
        needs="CAP_NET_ADMIN",
        older=True,
    ),
    Technique(
        "older-raw",
        "a raw socket made before the agent started; then a packet with a header of its own",
        _used("older-raw", lambda stage, sock: sock.sendto(spoofed(stage), (stage.to[0], 0))),
        OPEN,
        needs="CAP_NET_RAW",
        older=True,
        remedy="A user's raw sockets are known by the note that is made at their birth; one "
        "without it is taken for the kernel's own. Start the agent before whoever holds "
        "CAP_NET_RAW.",
    ),
)
