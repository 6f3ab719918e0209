"""A stream of numbered records, and what its receiver notes: `ticks.py send|hear|listen ...`.

The records say what is missing, the times at the receiver how long nothing came. Run as a file,
since it is also what ssh runs at its other end; it needs nothing but Python.

    send stdout|tcp|mptcp SAID EVERY_MS [NAME ADDRESS PORT]  until SIGTERM; SAID is written then
    hear FOLDER NAME                                         what comes by standard input
    listen ADDRESS PORT FOLDER                               TCP and MPTCP, each by its own NAME
"""

import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Final

#: One record: its number, twice.
RECORD: Final = struct.Struct("!QQ")
#: What the receiver notes of each read: the monotonic clock, and how many records were whole then.
NOTE: Final = struct.Struct("!QQ")
#: In the place of a number of records: what came is not what was sent.
WRONG: Final = (1 << 64) - 1
_IPPROTO_MPTCP: Final = 262
_LAST_S: Final = 5.0


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    match arguments:
        case ["send", "stdout", said, every_ms]:
            _Sender(Path(said), float(every_ms) / 1e3).to_file(1)
        case ["send", "tcp" | "mptcp" as kind, said, every_ms, name, address, port]:
            sender = _Sender(Path(said), float(every_ms) / 1e3)
            sender.to_peer(kind, name, address, int(port))
        case ["hear", folder, name]:
            source = os.environ.get("SSH_CONNECTION", "-").split()[0]
            _hear(0, Path(folder), name, source, b"")
        case ["listen", address, port, folder]:
            _listen(address, int(port), Path(folder))
        case _:
            sys.exit(__doc__)


class _Sender:
    """Sends a record every so often, and says at the end how many, and what became of it."""

    def __init__(self, said: Path, every_s: float) -> None:
        self._said, self._every_s = said, every_s
        self._told_to_end = threading.Event()
        self._wake, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        signal.signal(signal.SIGTERM, lambda *_: self._told_to_end.set())
        self._held = wake
        self._sent = 0

    def to_file(self, descriptor: int) -> None:
        """To a pipe, whose reader may end."""
        self._note(self._run(descriptor, None))

    def to_peer(self, kind: str, name: str, address: str, port: int) -> None:
        """Over a connection of its own, which is closed in order at the end."""
        number = _IPPROTO_MPTCP if kind == "mptcp" else socket.IPPROTO_TCP
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM, number) as sock:
            try:
                sock.connect((address, port))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.sendall(f"{name}\n".encode())
                failed = self._run(sock.fileno(), sock)
                if failed is None:
                    sock.shutdown(socket.SHUT_WR)
                    sock.settimeout(_LAST_S)
                    sock.recv(1)
            except OSError as error:
                failed = error
            self._note(failed)

    def _run(self, descriptor: int, sock: socket.socket | None) -> OSError | None:
        """Until told to end, or until it fails; a socket's failure is noticed at once."""
        watched = select.poll()
        watched.register(self._wake, select.POLLIN)
        if sock is not None:
            watched.register(sock, select.POLLIN)
        next_s = time.monotonic()
        while not self._told_to_end.is_set():
            try:
                os.write(descriptor, RECORD.pack(self._sent, self._sent))
                self._sent += 1
                next_s = max(next_s + self._every_s, time.monotonic() - 1.0)
                wait_ms = max(0.0, next_s - time.monotonic()) * 1e3
                for ready, _ in watched.poll(wait_ms):
                    if sock is not None and ready == sock.fileno():
                        sock.recv(1)
                        return OSError(errno.EPIPE, "the peer has closed")
            except OSError as error:
                return error
        return None

    def _note(self, failed: OSError | None) -> None:
        said = {
            "sent": self._sent,
            "error": failed and errno.errorcode.get(failed.errno or 0, str(failed)),
            "at_s": time.monotonic(),
        }
        written = self._said.with_suffix(".new")
        written.write_text(json.dumps(said))
        written.rename(self._said)


def _hear(descriptor: int, folder: Path, name: str, source: str, first: bytes) -> None:
    """Note each arrival, and in the end how it came about, in files of the stream's own."""
    (folder / f"{name}.source").write_text(source)
    records, rest, end = 0, first, "closed"
    with (folder / f"{name}.notes").open("ab", buffering=0) as notes:
        while True:
            try:
                data = os.read(descriptor, 65536)
            except OSError as error:
                end = errno.errorcode.get(error.errno or 0, str(error))
                break
            if not data:
                break
            now = time.monotonic_ns()
            rest += data
            whole = len(rest) // RECORD.size * RECORD.size
            for number, same in RECORD.iter_unpack(rest[:whole]):
                if number != records or same != records:
                    notes.write(NOTE.pack(now, WRONG))
                    return
                records += 1
            rest = rest[whole:]
            notes.write(NOTE.pack(now, records))
    (folder / f"{name}.end").write_text(end)


def _listen(address: str, port: int, folder: Path) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, _IPPROTO_MPTCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(64)
        while True:
            sock, peer = listener.accept()
            threading.Thread(target=_serve, args=(sock, peer[0], folder), daemon=True).start()


def _serve(sock: socket.socket, source: str, folder: Path) -> None:
    with sock:
        try:
            line, _, rest = sock.recv(4096).partition(b"\n")
        except OSError:
            return
        if line:
            _hear(sock.fileno(), folder, line.decode(), source, rest)


if __name__ == "__main__":
    main(sys.argv[1:])
