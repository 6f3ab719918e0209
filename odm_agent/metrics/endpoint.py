"""The HTTP endpoint that Prometheus scrapes."""

import threading
from types import TracebackType
from typing import Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from odm_agent.core.errors import OdmError
from odm_agent.metrics.collector import OdmCollector
from odm_agent.metrics.readings import Readings


class MetricsError(OdmError):
    """The endpoint could not be opened."""


class MetricsServer:
    """A running endpoint with its thread; a context manager, or `close()` it."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port it listens on: the one asked for, or what the kernel chose for port 0."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop serving and wait until the port is free again."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:9653" or "[::1]:9653"; MetricsError if it is neither."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise MetricsError(
            f"opening the metrics endpoint: {address!r} is no address; write agent.metrics as "
            '"127.0.0.1:9653" or "[::1]:9653"'
        )
    return host, int(port)


def start(address: str, readings: Readings) -> MetricsServer:
    """Serve `readings` at `address` ("host:port") from a thread, in a registry of its own."""
    host, port = split_address(address)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(OdmCollector(readings))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise MetricsError(
            f"opening the metrics endpoint {address}: {error.strerror or error}; "
            'choose another agent.metrics, or "" for none'
        ) from error
    return MetricsServer(server, thread)
