"""One application: opens, uses and closes sockets of all kinds, and says what it saw."""

import os
import random
import signal
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from odm_agent.core.model import TYPES, AddressType, Family
from tests.lab.client import Kind, ask
from tests.lab.host import CORRESPONDENT, FIXED
from tests.lab.place import Ready
from tests.soak.classes import DEFAULTS, allowed
from tests.soak.server import PORT

_KINDS: Final = [kind for kind in Kind if not kind.mptcp]
#: How many sockets one worker keeps open.
_OPEN: Final = 40
_ANSWER_S: Final = 5.0
_TRIES: Final = 4
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass
class Report:
    """What a worker tells at its end: how many of what, and every violation."""

    name: str
    done: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


@dataclass
class _Open:
    """A socket in use; `expected` is what the correspondent should see."""

    sock: socket.socket
    kind: Kind
    expected: str


def work(name: str, addresses: dict[Family, str], ready: Ready) -> None:
    """Work until SIGTERM; then tell the report. `addresses` are Fixed ones, to be refused."""
    report = Report(name)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    draw = random.Random(f"{name} {os.getpid()}")
    kept: list[_Open] = []
    ready(os.getpid())
    while not stopping:
        try:
            _step(draw, name, addresses, kept, report)
        except OSError as error:
            if error.errno is not None or not stopping:
                report.violations.append(f"{name}: {error!r}")
        if len(report.violations) > 20:
            break
    for each in kept:
        each.sock.close()
    ready(report)


def _step(
    draw: random.Random,
    name: str,
    addresses: dict[Family, str],
    kept: list[_Open],
    report: Report,
) -> None:
    """Open a socket, use one that is open, close one, or try what is not allowed."""
    lot = draw.random()
    if lot < 0.15:
        _trespass(draw, name, addresses, report)
    elif lot < 0.55 or not kept:
        made = _made(draw, name, report)
        if made is not None:
            _speak(made, name, report)
            kept.append(made)
    elif lot < 0.75:
        _speak(draw.choice(kept), name, report)
    if len(kept) > _OPEN or (kept and lot > 0.9):
        gone = kept.pop(draw.randrange(len(kept)))
        if gone.kind.stream and draw.random() < 0.5:
            gone.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        gone.sock.close()
        report.done["closed"] += 1


def _made(draw: random.Random, name: str, report: Report) -> _Open | None:
    """A socket with the type that it asked for, or with its class's default."""
    kind = draw.choice(_KINDS)
    type = draw.choice(sorted(allowed(name))) if allowed(name) and draw.random() < 0.4 else None
    sock = kind.open()
    sock.settimeout(_ANSWER_S)
    try:
        if type is not None:
            ask(sock, type)
        if kind.connects:
            sock.connect((kind.spell(CORRESPONDENT[kind.family]), PORT))
        else:
            sock.sendto(f"{name} {_word(type or DEFAULTS[name])}".encode(), _to(kind))
            sock.recv(4096)
    except OSError as error:
        sock.close()
        if name == "capped" and error.errno == 122:  # EDQUOT: it is at its cap, as it should be
            report.done["over the cap"] += 1
            return None
        raise
    report.done["opened"] += 1
    return _Open(sock, kind, _word(type or DEFAULTS[name]))


def _to(kind: Kind) -> tuple[str, int]:
    return kind.spell(CORRESPONDENT[kind.family]), PORT


def _word(type: AddressType | None) -> str:
    return type.word if type else "untyped"


def _speak(each: _Open, name: str, report: Report) -> None:
    """A question and the correspondent's verdict. Datagrams may be lost when all are busy."""
    line = f"{name} {each.expected}\n".encode()
    for _ in range(1 if each.kind.stream else _TRIES):
        if each.kind.connects:
            each.sock.send(line)
        else:
            each.sock.sendto(line, _to(each.kind))
        try:
            answer = each.sock.recv(4096)
        except TimeoutError:
            report.done["asked again"] += 1
            continue
        report.done["answered"] += 1
        if answer.splitlines()[-1] != b"ok":
            report.violations.append(f"{name} {each.kind.name}: {answer!r}")
        return
    report.violations.append(f"{name} {each.kind.name}: no answer")


def _trespass(draw: random.Random, name: str, addresses: dict[Family, str], report: Report) -> None:
    """Bind a Fixed address, or ask for a type: refused to whom it is not allowed."""
    kind = draw.choice((Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4))
    refused = FIXED not in allowed(name) and name != "audited"
    wanted = draw.choice([type for type in TYPES if type not in allowed(name)] or [None])
    with kind.open() as sock:
        try:
            if draw.random() < 0.5 and wanted is not None and name != "audited":
                refused = True
                ask(sock, wanted)
            else:
                sock.bind((addresses[kind.family], 0))
        except OSError as error:
            if not refused or error.errno != 13:
                raise
            report.done["refused"] += 1
            return
    if refused:
        report.violations.append(f"{name} {kind.name}: not refused")
