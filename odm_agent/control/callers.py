"""Who is being served by a unix socket: a task for each caller, which ends with the server."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


class Callers:
    """The server at a listening socket, and the tasks of its callers."""

    def __init__(self) -> None:
        """Nobody calls yet."""
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    async def open(self, sock: socket.socket, accept: Accept, *, limit: int) -> None:
        """Have `accept` called for each caller, of whose words so many bytes are kept."""
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._server = await asyncio.start_unix_server(accept, sock=sock, limit=limit)

    def serve(self, work: Coroutine[Any, Any, None]) -> None:
        """Serve a caller."""
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take no more callers, and end all tasks; raises what one of them has raised."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        finally:
            await self._server.wait_closed()
