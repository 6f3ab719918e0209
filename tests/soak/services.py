"""A service manager that restarts a service all the time, in a cgroup made anew at each start."""

import os
import random
import signal
from pathlib import Path
from typing import Final

from tests.lab.client import Kind
from tests.lab.host import CORRESPONDENT
from tests.lab.place import Ready
from tests.lab.restarts import restarted
from tests.soak.classes import SERVICES
from tests.soak.server import PORT
from tests.soak.worker import Report

_ANSWER_S: Final = 5.0
_TRIES: Final = 4


def serve(name: str, root: Path, ready: Ready) -> None:
    """Restart the service of a class until SIGTERM; then tell the report."""
    report = Report(name)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    draw = random.Random(f"{name} {os.getpid()}")
    path, type = SERVICES[name]
    line = f"{name} {type.word}\n".encode()
    ready(os.getpid())
    (root / path).parent.mkdir(exist_ok=True)
    if (root / path).exists():
        (root / path).rmdir()
    while not stopping and len(report.violations) <= 20:
        kind = draw.choice((Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.SENDTO4))
        try:
            said = restarted(root / path, lambda kind=kind: _first_words(kind, line))  # type: ignore[misc]
        except OSError as error:
            said = repr(error)
        report.done["services restarted"] += 1
        if said != "ok":
            report.violations.append(f"{name} {kind.name} as it started: {said}")
    ready(report)


def _first_words(kind: Kind, line: bytes) -> str:
    """What the correspondent says to the first thing that the service does."""
    to = kind.spell(CORRESPONDENT[kind.family]), PORT
    with kind.open() as sock:
        sock.settimeout(_ANSWER_S)
        if kind.connects:
            sock.connect(to)
        for _ in range(1 if kind.stream else _TRIES):
            if kind.connects:
                sock.send(line)
            else:
                sock.sendto(line, to)
            try:
                return sock.recv(4096).splitlines()[-1].decode()
            except TimeoutError:  # a datagram may be lost when all are busy
                continue
    return "no answer"
