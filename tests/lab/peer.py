"""The correspondent: a process of its own whose record of who called is the tests' witness.

It answers every TCP connection and every UDP datagram with the caller's address as it sees it
("ADDRESS PORT", a line), and dials back when asked to. Run as a program it speaks JSON lines on
stdin and stdout; `Peer` is the handle of that program.
"""

import json
import selectors
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.lab.netns import NetNs
from tests.lab.resolver import answer_to

#: TCP and UDP, on each address that the correspondent was given.
PORTS: Final = (53, 80, 7001, 7002)
#: Connections to this TCP port end after the greeting; others echo what follows.
GREETING_PORT: Final = 7002
#: The TCP port whose listener speaks MPTCP too (RFC 8684).
MPTCP_PORT: Final = 7003
IPPROTO_MPTCP: Final = 262


@dataclass(frozen=True)
class Caller:
    """One connection accepted or one datagram received by the peer."""

    protocol: str
    source: str
    source_port: int
    port: int
    data: str = ""


def plain(address: str) -> str:
    """An address in its one spelling; IPv4-mapped ones as IPv4, without a scope."""
    parsed = ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Peer:
    """A running correspondent inside a namespace."""

    def __init__(self, netns: NetNs, addresses: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            netns.command([sys.executable, "-m", "tests.lab.peer", *addresses]),
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is ours to handle, not its
        )
        try:
            self._ask("seen")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process and close the pipes to it."""
        self._process.kill()
        self._process.communicate()

    def seen(self) -> list[Caller]:
        """Everybody who called since the last time that this was asked, in order."""
        return [Caller(**each) for each in self._ask("seen")]

    def dial(
        self,
        protocol: str,
        address: str,
        port: int,
        *,
        source: str | None = None,
        timeout_s: float = 2.0,
    ) -> dict[str, Any]:
        """Call `address`: {"answer": text, "from": address that answered} or {"error": word}.

        TCP reads to the end of the stream; UDP sends "ping" and takes one datagram from anywhere.
        """
        result: dict[str, Any] = self._ask(
            "dial",
            protocol=protocol,
            address=address,
            port=port,
            source=source,
            timeout_s=timeout_s,
        )
        return result

    def _ask(self, verb: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the correspondent died"
        return json.loads(line)


# --- the program ------------------------------------------------------------------------------


def dial(
    protocol: str, address: str, port: int, source: str | None, timeout_s: float
) -> dict[str, Any]:
    """One call out of the correspondent (see `Peer.dial`)."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(_family(address), kind) as sock:
        sock.settimeout(timeout_s)
        try:
            if source is not None:
                sock.bind((source, 0))
            if protocol == "udp":
                sock.sendto(b"ping", (address, port))
                data, sender = sock.recvfrom(65536)
                return {"answer": data.decode(), "from": plain(sender[0])}
            sock.connect((address, port))
            text = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
            return {"answer": text, "from": plain(sock.getpeername()[0])}
        except TimeoutError:
            return {"error": "timeout"}
        except OSError as error:
            return {"error": error.strerror}


class Correspondent:
    """The servers, in one thread; nothing blocks but `dial`."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.selector = selectors.DefaultSelector()
        self.callers: list[Caller] = []
        self._streams: dict[socket.socket, int] = {}
        # A socket an address: a datagram is answered from the address that it was sent to.
        for address in addresses:
            for port in PORTS:
                self._open(address, socket.SOCK_STREAM, port, 0)
                self._open(address, socket.SOCK_DGRAM, port, 0)
            self._open(address, socket.SOCK_STREAM, MPTCP_PORT, IPPROTO_MPTCP)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self._command)

    def serve(self) -> None:
        """Serve until stdin ends."""
        while True:
            self._serve_ready(None)

    def _serve_ready(self, timeout_s: float | None) -> bool:
        # Commands last: what has arrived before a question belongs to its answer.
        ready = sorted(
            self.selector.select(timeout_s), key=lambda item: item[0].fileobj is sys.stdin
        )
        for key, _ in ready:
            key.data(key.fileobj)
        return bool(ready)

    def _open(self, address: str, kind: int, port: int, protocol: int) -> None:
        sock = socket.socket(_family(address), kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.listen(128)
            self.selector.register(sock, selectors.EVENT_READ, self._accept)
        else:
            self.selector.register(sock, selectors.EVENT_READ, self._datagram)

    def _accept(self, listener: socket.socket) -> None:
        try:
            stream, sender = listener.accept()
        except OSError:
            return
        port = stream.getsockname()[1]
        self.callers.append(Caller("tcp", plain(sender[0]), sender[1], port))
        stream.setblocking(False)
        if port == 80:
            self._streams[stream] = 80
        else:
            with suppress(OSError):  # reset already
                stream.send(f"{plain(sender[0])} {sender[1]}\n".encode())
        if port == GREETING_PORT:
            stream.close()
            return
        self.selector.register(stream, selectors.EVENT_READ, self._stream)

    def _stream(self, stream: socket.socket) -> None:
        """Echo; on port 80 answer one HTTP request with the caller's address."""
        try:
            data = stream.recv(65536)
            if data and self._streams.get(stream):
                name = stream.getpeername()
                body = f"{plain(name[0])} {name[1]}\n"
                stream.send(
                    f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                data = b""
            elif data:
                stream.send(data)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(stream)
            self._streams.pop(stream, None)
            stream.close()

    def _datagram(self, sock: socket.socket) -> None:
        data, sender = sock.recvfrom(65536)
        port = sock.getsockname()[1]
        text = data.decode(errors="replace") if port != 53 else ""
        self.callers.append(Caller("udp", plain(sender[0]), sender[1], port, text))
        reply = answer_to(data) if port == 53 else f"{plain(sender[0])} {sender[1]}\n".encode()
        try:
            sock.sendto(reply, sender)
        except OSError:
            return  # the caller is gone: an error reported for an earlier datagram

    def _command(self, _: object) -> None:
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        request = json.loads(line)
        verb = request.pop("verb")
        answer: Any
        if verb == "dial":
            answer = dial(**request)
        else:
            self.selector.unregister(sys.stdin)
            while self._serve_ready(0):
                pass
            self.selector.register(sys.stdin, selectors.EVENT_READ, self._command)
            answer = [vars(each) for each in self.callers]
            self.callers = []
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    Correspondent(sys.argv[1:]).serve()
