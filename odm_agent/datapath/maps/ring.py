"""What the programs tell as it happens, in their order (bpf/odm_event.h)."""

import ctypes as ct
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from odm_agent.core.model import AddressType
from odm_agent.datapath import abi, libbpf
from odm_agent.datapath.base import KernelEvent
from odm_agent.datapath.libbpf.library import check, library

#: int (*)(void *context, void *data, size_t size)
_CALLBACK: Final = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_void_p, ct.c_size_t)


class Ring:
    """The ring buffer of a pin folder; one reader at a time. Raises DatapathError."""

    def __init__(self, pin_dir: Path) -> None:
        """`fileno()` is readable when the programs have woken the reader."""
        self._events: list[KernelEvent] = []
        self._callback = _CALLBACK(self._hear)  # kept, since libbpf has only its address
        self._fd = libbpf.get_pinned(pin_dir / "odm_events")
        new = library().ring_buffer__new
        new.restype = ct.c_void_p
        self._ring = ct.c_void_p(new(self._fd, self._callback, None, None))
        if not self._ring:
            check(-1, "reading the ring buffer odm_events")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """To be waited for."""
        return self._fd

    def take(self) -> list[KernelEvent]:
        """All events that are there, each once."""
        check(library().ring_buffer__consume(self._ring), "reading the ring buffer odm_events")
        taken, self._events = self._events, []
        return taken

    def close(self) -> None:
        """Stop reading; what was not read stays for the next reader."""
        if self._ring:
            library().ring_buffer__free(self._ring)
            self._ring = ct.c_void_p()
            os.close(self._fd)

    def _hear(self, _: int, data: int, size: int) -> int:
        """Called by libbpf for each event; an exception here would be lost."""
        if size == ct.sizeof(abi.Event):
            told = abi.Event.from_buffer_copy(ct.string_at(data, size))
            self._events.append(
                KernelEvent(
                    boot_s=told.boot_ns / 1e9,
                    kind=abi.EventKind(told.kind).name.lower(),
                    lease=told.lease,
                    class_id=told.class_id,
                    type=AddressType(told.type),
                    reason=abi.Reason(told.reason).name.lower().replace("_", "-"),
                    hook=abi.Hook(told.hook).name.lower().replace("_", "-"),
                    family=abi.family_of(told.family),
                    on_net=bool(told.wish & abi.WISH_ON_NET),
                    fresh=bool(told.wish & abi.WISH_FRESH),
                )
            )
        return 0
