"""A QUIC server at the correspondent that says what each connection was: `quic FOLDER ADDRESS`.

aioquic's own, run as a module. For each connection a line of JSON goes to its standard output: the
sources that its datagrams came from, how many paths it has validated, and the SHA-256 of its bytes.
"""

import asyncio
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent, StreamDataReceived
from aioquic.quic.logger import QuicLogger

from tests.lab.netns import checked
from tests.netlab.plan import CORE
from tests.netlab.server import Server, listens
from tests.netlab.topology import NetLab

PORT: Final = 4433


class QuicServer(Server):
    """One stream of a connection is taken to its end, and closed then."""

    name = "the QUIC server"

    def __init__(self, lab: NetLab) -> None:
        folder = lab.folder / "quic"
        folder.mkdir()
        self._folder = folder
        checked(
            [
                *("openssl", "req", "-x509", "-newkey", "ec"),
                *("-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-nodes", "-keyout", str(folder / "key.pem"), "-out", str(self.certificate)),
                *("-subj", "/CN=correspondent", "-addext", f"subjectAltName=IP:{CORE[1]}"),
            ]
        )
        super().__init__(lab.core, folder / "log")

    @property
    def certificate(self) -> Path:
        """What a client is to trust."""
        return self._folder / "certificate.pem"

    def command(self) -> Sequence[str]:
        """In the foreground."""
        return [sys.executable, "-m", __name__, str(self._folder), str(CORE[1])]

    def ready(self) -> bool:
        """Whether it takes datagrams."""
        return listens(self.pid, "udp6", PORT)

    def connections(self) -> list[dict[str, Any]]:
        """Those whose stream has ended."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


class _Connection(QuicConnectionProtocol):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sources: dict[str, None] = {}
        self._bytes = hashlib.sha256()

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        self._sources[addr[0]] = None
        super().datagram_received(data, addr)

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self._bytes.update(event.data)
            if event.end_stream:
                self._quic.send_stream_data(event.stream_id, b"", end_stream=True)
                told = {
                    "sources": list(self._sources),
                    "validated": _validated(self._quic.configuration.quic_logger),
                    "sha256": self._bytes.hexdigest(),
                }
                print(json.dumps(told), flush=True)


def _validated(log: QuicLogger | None) -> int:
    """How many answers to challenges of a path (RFC 9000, section 8.2) have come."""
    assert log is not None
    return sum(
        frame["frame_type"] == "path_response"
        for trace in log.to_dict()["traces"]
        for event in trace["events"]
        if event["name"] == "transport:packet_received"
        for frame in event["data"]["frames"]
    )


async def _serve(folder: Path, address: str) -> None:
    configuration = QuicConfiguration(
        is_client=False, alpn_protocols=["odm"], quic_logger=QuicLogger()
    )
    configuration.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    await serve(address, PORT, configuration=configuration, create_protocol=_Connection)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2]))
