"""The correspondent's servers: ordinary ones, whose own logs are the witness of who called."""

import json
import re
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from odm_agent.core.model import Family
from tests.lab.host import CORRESPONDENT
from tests.lab.netns import NetNs
from tests.lab.process import wait_until
from tests.netlab.plan import filled
from tests.netlab.server import Server, listens

HTTP_PORT: Final = 8080
DNS_PORT: Final = 5300
IPERF_PORT: Final = 5201
ZONE: Final = "demo.test"
#: A file that takes some seconds to download.
LARGE: Final = "large"
LARGE_BYTES: Final = 300_000_000
_LOG_PATIENCE_S: Final = 3.0


def url(request: str, family: Family, port: int = HTTP_PORT) -> str:
    """Where the web server has the path `/request`."""
    peer = CORRESPONDENT[family]
    host = f"[{peer}]" if family is Family.IPV6 else peer
    return f"http://{host}:{port}/{request}"


class WitnessServer(Server):
    """A server of the correspondent, whose own log says who called."""

    def __init__(self, netns: NetNs, log: Path, port: int) -> None:
        super().__init__(netns, log)
        self.port = port

    @abstractmethod
    def callers(self, request: str) -> set[str]:
        """The sources of the request with this name; empty if it never arrived."""

    def logged(self, request: str) -> set[str]:
        """The same of a request that was answered: servers write it a moment after."""
        with suppress(AssertionError):
            wait_until(lambda: bool(self.callers(request)), request, _LOG_PATIENCE_S)
        return self.callers(request)

    def ready(self) -> bool:
        """Whether it takes connections (TCP: all of these servers do)."""
        return any(listens(self.pid, table, self.port) for table in ("tcp", "tcp6"))


class Nginx(WitnessServer):
    """A web server; its access log holds a line for each request: path and caller."""

    name = "nginx"

    def __init__(self, netns: NetNs, folder: Path, port: int = HTTP_PORT) -> None:
        self._folder = folder
        with (folder / LARGE).open("wb") as large:
            large.truncate(LARGE_BYTES)
        (folder / "nginx.conf").write_text(
            filled("nginx.conf", folder=folder, port=port, large=LARGE)
        )
        super().__init__(netns, folder / "nginx.out", port)

    def command(self) -> Sequence[str]:
        """In the foreground, as its configuration says."""
        error_log = self._folder / "nginx-error.log"
        return ["nginx", "-e", str(error_log), "-c", f"{self._folder}/nginx.conf"]

    def callers(self, request: str) -> set[str]:
        """Who asked for the path `/request`."""
        access = (self._folder / "access.log").read_text()
        return set(re.findall(rf"^/{re.escape(request)} (\S+)$", access, re.M))


class Dnsmasq(WitnessServer):
    """A name server; its query log names the caller of each question."""

    name = "dnsmasq"

    def __init__(self, netns: NetNs, folder: Path, port: int = DNS_PORT) -> None:
        self._queries, self._conf = folder / "queries.log", folder / "dnsmasq.conf"
        self._conf.write_text(
            filled(
                "dnsmasq.conf",
                log=self._queries,
                port=port,
                zone=ZONE,
                ipv4=CORRESPONDENT[Family.IPV4],
                ipv6=CORRESPONDENT[Family.IPV6],
            )
        )
        super().__init__(netns, folder / "dnsmasq.out", port)

    def command(self) -> Sequence[str]:
        """In the foreground, as its configuration says."""
        return ["dnsmasq", f"--conf-file={self._conf}"]

    def callers(self, request: str) -> set[str]:
        """Who asked for the name `request` in the zone."""
        question = rf"query\[\w+\] {re.escape(request)}\.{re.escape(ZONE)} from (\S+)$"
        return set(re.findall(question, self._queries.read_text(), re.M))


class Iperf(WitnessServer):
    """A throughput server; each measurement ends in a JSON report with the client's title."""

    name = "iperf3"

    def __init__(self, netns: NetNs, folder: Path, port: int = IPERF_PORT) -> None:
        super().__init__(netns, folder / "iperf3.json", port)

    def command(self) -> Sequence[str]:
        """In the foreground, as it is unless told otherwise."""
        return ["iperf3", "--server", "--json", "--forceflush", f"--port={self.port}"]

    def callers(self, request: str) -> set[str]:
        """Who opened the control and the data connections of the measurement of this title."""
        for report in _json_values(self.log.read_text()):
            if report.get("title") == request:
                start = report["start"]
                hosts = {str(each["remote_host"]) for each in start["connected"]}
                return hosts | {str(start["accepted_connection"]["host"])}
        return set()


def _json_values(text: str) -> list[dict[str, Any]]:
    """All complete JSON objects of a text, one after the other."""
    decoder = json.JSONDecoder()
    values = []
    position = 0
    while (start := text.find("{", position)) >= 0:
        try:
            value, position = decoder.raw_decode(text, start)
        except json.JSONDecodeError:
            break  # still being written
        values.append(value)
    return values
