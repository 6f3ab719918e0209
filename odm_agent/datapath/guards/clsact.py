"""The program of packet sockets at interfaces by filters (clsact): what kernels before 6.6 have.

A filter lives with its interface and needs no pin. So that ours are known again, each has a note:
the program, pinned at `DIR/clsact/IFINDEX-HANDLE`, or `IFINDEX-HANDLE-made` if clsact itself was
made by us. Several agents may share an interface: each takes a handle that is free.
"""

import errno
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from socket import if_nameindex
from typing import Final, NamedTuple

from odm_agent.core.errors import DatapathError
from odm_agent.datapath import libbpf
from odm_agent.datapath.guards import tc

HANDLES: Final = range(0x8653, 0x8653 + 8)


class Filter(NamedTuple):
    """A place at the egress of an interface of this namespace, and the program that is there."""

    ifindex: int
    handle: int
    prog_id: int

    @property
    def stands(self) -> bool:
        """Whether it is still so; anybody may take filters or clsact away."""
        return tc.program_at(self.ifindex, self.handle) == self.prog_id


class Note(NamedTuple):
    """That we attached a filter; `made` says that clsact wasn't there before."""

    path: Path
    filter: Filter
    made: bool


def folder(pin_dir: Path) -> Path:
    """Where the notes are."""
    return pin_dir / "clsact"


def replace(pin_dir: Path, prog_fd: int) -> None:
    """Put the program in the place of an older one at every interface."""
    for note in _notes(pin_dir):
        place = note.filter
        stands = place.stands
        if stands:
            tc.attach(place.ifindex, place.handle, prog_fd, replace=True)
        note.path.unlink()
        if stands:
            libbpf.pin(prog_fd, note.path)


def guarded(pin_dir: Path) -> frozenset[int]:
    """The interfaces (by index) where the program stands; also those that have gone."""
    notes = _notes(pin_dir)
    here = {index for index, _ in if_nameindex()} if notes else ()
    return frozenset(
        note.filter.ifindex
        for note in notes
        if note.filter.ifindex not in here or note.filter.stands
    )


def attach(pin_dir: Path, prog_fd: int, ifindex: int) -> None:
    """Attach at an interface where it does not stand; raises DatapathError."""
    made = tc.make_hooks(ifindex)
    for old in _notes(pin_dir):
        if old.filter.ifindex == ifindex:
            made |= old.made  # and somebody took our filter away
            old.path.unlink()
    handle = _free_handle(ifindex)
    # First, so that what is attached is always known.
    note = write_note(pin_dir, prog_fd, ifindex, handle, made=made)
    try:
        _attach(ifindex, handle, prog_fd)
    except BaseException:
        note.unlink()
        if made:
            with suppress(DatapathError):
                tc.remove_hooks(ifindex)
        raise


def detach(pin_dir: Path, ifindex: int) -> None:
    """Detach from an interface, or forget one that is gone."""
    for note in _notes(pin_dir):
        if note.filter.ifindex == ifindex:
            _take_away(note)


def remove(pin_dir: Path) -> None:
    """Detach from all interfaces, and remove the notes."""
    for note in _notes(pin_dir):
        _take_away(note)
    if folder(pin_dir).is_dir():
        folder(pin_dir).rmdir()


def standing() -> Iterator[Filter]:
    """What stands at the places that we use, at every interface of this namespace."""
    for ifindex, _ in if_nameindex():
        for handle in HANDLES:
            if prog_id := tc.program_at(ifindex, handle):
                yield Filter(ifindex, handle, prog_id)


def write_note(
    pin_dir: Path, prog_fd: int, ifindex: int, handle: int, *, made: bool = False
) -> Path:
    """Note that a program stands, or is about to stand, at a place; where the note is."""
    path = folder(pin_dir) / f"{ifindex}-{handle}{'-made' if made else ''}"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    libbpf.pin(prog_fd, path)
    return path


def read_notes(paths: Iterable[Path]) -> Iterator[Note]:
    """What the names and pins say; those that were just removed say nothing."""
    for path in paths:
        found = libbpf.find_pinned(path)
        if found is not None:
            ifindex, handle, *made = path.name.split("-")
            with libbpf.opened(found) as fd:
                prog_id = libbpf.prog_info(fd).id
            yield Note(path, Filter(int(ifindex), int(handle), prog_id), bool(made))


def _notes(pin_dir: Path) -> list[Note]:
    notes = folder(pin_dir)
    return list(read_notes(sorted(notes.iterdir()))) if notes.is_dir() else []


def _take_away(note: Note) -> None:
    with suppress(DatapathError):  # its interface may go just now
        if note.filter.stands:
            tc.detach(note.filter.ifindex, note.filter.handle)
        if note.made:
            tc.remove_hooks(note.filter.ifindex)
    note.path.unlink()


def _attach(ifindex: int, handle: int, prog_fd: int) -> None:
    try:
        tc.attach(ifindex, handle, prog_fd)
    except DatapathError as error:
        if libbpf.error_code(error) != errno.EINVAL:
            raise
        raise DatapathError(
            f"{error}: somebody's filter of another kind has priority {tc.PRIORITY} there;"
            " give that a higher number (`tc filter show dev INTERFACE egress` shows it)"
        ) from error


def _free_handle(ifindex: int) -> int:
    for handle in HANDLES:
        if not tc.program_at(ifindex, handle):
            return handle
    raise DatapathError(
        f"all {len(HANDLES)} handles of ours at the egress of interface {ifindex} are taken;"
        f" `tc filter show dev INTERFACE egress` shows by whom"
    )
