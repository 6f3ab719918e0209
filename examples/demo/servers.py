"""The correspondent's servers: ordinary ones, whose own logs are the witness of who called."""

import json
import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from odm_agent.core.model import Family
from tests.lab.host import CORRESPONDENT
from tests.lab.netns import NetNs
from tests.lab.process import wait_until

HTTP_PORT: Final = 8080
DNS_PORT: Final = 5300
IPERF_PORT: Final = 5201
ZONE: Final = "demo.test"
#: A file that takes some seconds to download.
LARGE: Final = "large"
LARGE_BYTES: Final = 300_000_000

_NGINX_CONF: Final = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
user root;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
    log_format caller '$request_uri $remote_addr';
    access_log {folder}/access.log caller;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {port};
        listen [::]:{port};
        location /{large} {{
            root {folder};
            limit_rate 30m;
        }}
        location / {{
            return 200 "hello\\n";
        }}
    }}
}}
"""


def url(request: str, family: Family) -> str:
    """Where the web server has the path `/request`."""
    peer = CORRESPONDENT[family]
    host = f"[{peer}]" if family is Family.IPV6 else peer
    return f"http://{host}:{HTTP_PORT}/{request}"


class Server(ABC):
    """A server process in the correspondent's namespace, gone at the end of the context."""

    def __init__(self, netns: NetNs, command: Sequence[str], port: int, log: Path) -> None:
        self._netns = netns
        self._port = port
        with log.open("wb") as output:
            # A session of its own: Ctrl-C is for the demo, which then ends its servers.
            self._process = subprocess.Popen(
                netns.command(command), stdout=output, stderr=output, start_new_session=True
            )
        try:
            wait_until(self._listens, f"{command[0]} listens on port {port}, see {log}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait(10)

    @abstractmethod
    def callers(self, request: str) -> set[str]:
        """The sources of the request with this name; empty if it never arrived."""

    def _listens(self) -> bool:
        assert self._process.poll() is None, f"{self._process.args!r} ended"
        return bool(self._netns.run(["ss", "-Hltn", f"sport = :{self._port}"]).strip())


class Nginx(Server):
    """A web server; its access log holds a line for each request: path and caller."""

    def __init__(self, netns: NetNs, folder: Path) -> None:
        self._access = folder / "access.log"
        configuration = folder / "nginx.conf"
        with (folder / LARGE).open("wb") as large:
            large.truncate(LARGE_BYTES)
        configuration.write_text(_NGINX_CONF.format(folder=folder, port=HTTP_PORT, large=LARGE))
        command = ["nginx", "-e", str(folder / "nginx-error.log"), "-c", str(configuration)]
        super().__init__(netns, command, HTTP_PORT, folder / "nginx.out")

    def callers(self, request: str) -> set[str]:
        """Who asked for the path `/request`."""
        return set(re.findall(rf"^/{re.escape(request)} (\S+)$", self._access.read_text(), re.M))


class Dnsmasq(Server):
    """A name server; its query log names the caller of each question."""

    def __init__(self, netns: NetNs, folder: Path) -> None:
        self._queries = folder / "queries.log"
        command = [
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root"),
            *("--no-resolv", "--no-hosts", f"--port={DNS_PORT}", "--pid-file"),
            *("--log-queries", f"--log-facility={self._queries}"),
            *(f"--address=/{ZONE}/203.0.113.1", f"--address=/{ZONE}/2001:db8:c::1"),
        ]
        super().__init__(netns, command, DNS_PORT, folder / "dnsmasq.out")

    def callers(self, request: str) -> set[str]:
        """Who asked for the name `request` in the demo's zone."""
        question = rf"query\[\w+\] {re.escape(request)}\.{re.escape(ZONE)} from (\S+)$"
        return set(re.findall(question, self._queries.read_text(), re.M))


class Iperf(Server):
    """A throughput server; each measurement ends in a JSON report with the client's title."""

    def __init__(self, netns: NetNs, folder: Path) -> None:
        self._reports = folder / "iperf3.json"
        command = ["iperf3", "--server", "--json", "--forceflush", f"--port={IPERF_PORT}"]
        super().__init__(netns, command, IPERF_PORT, self._reports)

    def callers(self, request: str) -> set[str]:
        """Who opened the control and the data connections of the measurement of this title."""
        for report in _json_values(self._reports.read_text()):
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
