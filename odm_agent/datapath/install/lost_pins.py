"""Our links whose pins can't be seen: they go on enforcing, so they are found by asking the kernel.

It happens when a bpf file system is mounted over ours (the pins are below, and hold), when all
pins are removed but somebody keeps the links open, and when `agent.pin_dir` is changed. Ours is
what has a name of ours and serves our network namespace (odm_settings): agents in other
namespaces have their own, on the same cgroup perhaps.
"""

import ctypes as ct
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from odm_agent.core.errors import DatapathError
from odm_agent.datapath import abi, census, libbpf
from odm_agent.datapath.catalogue import BY_KERNEL_NAME, MAPS, TRACEPOINTS
from odm_agent.datapath.guards import clsact, creation, packet_sockets, tc, tcx
from odm_agent.datapath.install import deployment, visible
from odm_agent.datapath.install.pins import attached, links_folder, make_folder
from odm_agent.datapath.install.visible import Folder

#: The kernel keeps 15 characters of a name.
_MAP_NAMES: Final = {name[:15]: name for name in MAPS}


@dataclass(frozen=True, slots=True)
class Found:
    """A link of ours. `pinned` is where, as far as anybody sees it; `maps` are name -> map id."""

    name: str
    link: libbpf.LinkInfo
    maps: dict[str, int]
    pinned: Folder | None
    #: The protocol number of what its agent makes.
    protocol: int

    @property
    def settings_id(self) -> int:
        """The map by which programs that work together are told from others."""
        return self.maps["odm_settings"]


def find(netns_cookie: int, cgroup_id: int | None = None) -> list[Found]:
    """All links of ours that serve the namespace, at one cgroup or at any."""
    pinned: dict[int, Folder] | None = None
    found = []
    for fd in libbpf.links(libbpf.LINK_CGROUP):
        link = libbpf.link_info(fd)
        if not link.cgroup_id or cgroup_id not in (None, link.cgroup_id):
            continue
        name, maps = _program(link.prog_id)
        row = _settings(maps.get("odm_settings")) if name is not None else None
        if name is not None and row is not None and row.home_netns == netns_cookie:
            pinned = visible.links() if pinned is None else pinned
            found.append(Found(name, link, maps, pinned.get(link.id), row.protocol))
    return found


def repin(pin_dir: Path, netns_cookie: int, cgroup_id: int) -> int:
    """Pin what enforces already, but is pinned nowhere, in `pin_dir`; how many links that were.

    DatapathError if it is pinned somewhere else: another agent may be working on it.
    """
    found = find(netns_cookie, cgroup_id)
    elsewhere = {each.pinned for each in found if each.pinned is not None}
    elsewhere.discard(Folder(pin_dir))
    if elsewhere:
        folder = min(elsewhere)
        where = "start the agent there" if folder.pid else f"set `agent.pin_dir` to {folder}"
        raise DatapathError(
            f"programs of ours for this network namespace and cgroup are pinned in {folder}, not"
            f" in {pin_dir}; {where}, or remove them with `{folder.detach}` (which ends"
            " enforcement)"
        )
    lost = [each for each in found if each.pinned is None]
    if not lost:
        return 0
    make_folder(pin_dir)
    # If there were ever two sets, that of the youngest link is what an agent filled last.
    newest = max(lost, key=lambda each: each.link.id).settings_id
    kept = [each for each in lost if each.settings_id == newest]
    for map_name, map_id in {k: v for each in kept for k, v in each.maps.items()}.items():
        with libbpf.opened(libbpf.map_by_id(map_id)) as fd:
            (pin_dir / map_name).unlink(missing_ok=True)
            libbpf.pin(fd, pin_dir / map_name)
    _pin_others(pin_dir, newest)
    repinned = {each.link.id: each.name for each in kept}
    for fd in libbpf.links(libbpf.LINK_CGROUP):
        if name := repinned.get(libbpf.link_info(fd).id):
            path = links_folder(pin_dir) / name
            path.unlink(missing_ok=True)
            libbpf.pin(fd, path)
    _detach({each.link.id for each in lost} - repinned.keys())
    _disown({each.settings_id for each in lost} - {newest})
    return len(repinned)


def _pin_others(pin_dir: Path, settings_id: int) -> None:
    """What belongs to the same set and is not attached to a cgroup."""

    def is_of_set(prog_fd: int, name: str) -> bool:
        found, maps = _identify(prog_fd)
        return found == name and maps.get("odm_settings") == settings_id

    for fd in libbpf.programs():
        if is_of_set(fd, packet_sockets.PROGRAM):
            _pin(fd, pin_dir / packet_sockets.PROGRAM)
    for fd in libbpf.links(libbpf.LINK_TCX):
        ifindex = libbpf.link_ifindex(fd)
        with suppress(DatapathError), libbpf.opened(_program_of(fd)) as prog_fd:
            if ifindex and is_of_set(prog_fd, packet_sockets.PROGRAM):
                tcx.folder(pin_dir).mkdir(mode=0o700, exist_ok=True)
                _pin(fd, tcx.folder(pin_dir) / str(ifindex))
    for place in clsact.standing():
        with suppress(DatapathError), libbpf.opened(libbpf.prog_by_id(place.prog_id)) as prog_fd:
            if is_of_set(prog_fd, packet_sockets.PROGRAM):
                clsact.write_note(pin_dir, prog_fd, place.ifindex, place.handle)
    for fd in libbpf.links(libbpf.LINK_ITERATOR):
        with suppress(DatapathError), libbpf.opened(_program_of(fd)) as prog_fd:
            if is_of_set(prog_fd, census.PROGRAM):
                _pin(fd, pin_dir / census.PIN)
    for fd in libbpf.links(libbpf.LINK_TRACEPOINT):
        with suppress(DatapathError), libbpf.opened(_program_of(fd)) as prog_fd:
            for name in TRACEPOINTS:
                if is_of_set(prog_fd, name):
                    _pin(fd, pin_dir / name)
                    _pin_missing(pin_dir, _identify(prog_fd)[1])
    for fd in libbpf.links(libbpf.LINK_TRACING):
        with suppress(DatapathError), libbpf.opened(_program_of(fd)) as prog_fd:
            if is_of_set(prog_fd, creation.PROGRAM):
                _pin(fd, pin_dir / creation.PROGRAM)


def _pin(fd: int, path: Path) -> None:
    path.unlink(missing_ok=True)
    libbpf.pin(fd, path)


def _program_of(link_fd: int) -> int:
    return libbpf.prog_by_id(libbpf.link_info(link_fd).prog_id)


def pin_maps(pin_dir: Path) -> None:
    """Pin anew those maps whose own pin was lost, as the programs of the pinned links hold them."""
    if all((pin_dir / name).exists() for name in MAPS):
        return
    for link in attached(pin_dir).values():
        _pin_missing(pin_dir, _program(link.prog_id)[1])
    for name in TRACEPOINTS:
        if (fd := libbpf.find_pinned(pin_dir / name)) is not None:
            with libbpf.opened(fd):
                _pin_missing(pin_dir, _program(libbpf.link_info(fd).prog_id)[1])


def _pin_missing(pin_dir: Path, maps: Mapping[str, int]) -> None:
    """Those of a program's maps (name -> map id) that are pinned nowhere in the folder."""
    for name, map_id in maps.items():
        if not (pin_dir / name).exists():
            with libbpf.opened(libbpf.map_by_id(map_id)) as fd:
                libbpf.pin(fd, pin_dir / name)


def remove(netns_cookie: int, protocol: int, but_for: Container[int] = ()) -> int:
    """Detach what one agent has lost: ours, by its protocol number, pinned nowhere that anybody
    sees; how many links that were.

    `but_for` are settings maps (by id) whose programs are left alone.
    """

    def is_lost(settings_id: int | None) -> bool:
        row = _settings(settings_id)
        if row is None or settings_id in but_for:
            return False
        # Another agent's addresses are told from ours by that number, and need their programs.
        return (row.home_netns, row.protocol) == (netns_cookie, protocol)

    found = find(netns_cookie)
    lost = {e.link.id for e in found if e.pinned is None and is_lost(e.settings_id)}
    at_creation = {n for n in _creation_settings() if is_lost(n)}
    at_creation -= {each.settings_id for each in found if each.pinned is not None}
    _detach(lost)
    _disown(at_creation)
    return len(lost) + len(at_creation) + _remove_links(is_lost) + _remove_filters(is_lost)


def _creation_settings() -> Iterator[int]:
    """The settings maps of all programs of ours at the creation of sockets."""
    for fd in libbpf.links(libbpf.LINK_TRACING):
        name, maps = _program(libbpf.link_info(fd).prog_id)
        if name == creation.PROGRAM and "odm_settings" in maps:
            yield maps["odm_settings"]


def _disown(settings_ids: Iterable[int]) -> None:
    """Make programs at the creation of sockets let all pass, since nothing detaches them."""
    for settings_id in settings_ids:
        deployment.disown_map(libbpf.map_by_id(settings_id))


def _remove_links(is_lost: Callable[[int | None], bool]) -> int:
    """Those at interfaces; how many."""
    removed = 0
    pinned: dict[int, Folder] | None = None
    for fd in libbpf.links(libbpf.LINK_TCX):
        if not libbpf.link_ifindex(fd):  # dead already
            continue
        link = libbpf.link_info(fd)
        if is_lost(_guard_settings(link.prog_id)):
            pinned = visible.links() if pinned is None else pinned
            if link.id not in pinned:
                libbpf.link_detach(fd)
                removed += 1
    return removed


def _remove_filters(is_lost: Callable[[int | None], bool]) -> int:
    """Those at interfaces where links are unknown; how many."""
    lost = {at for at in clsact.standing() if is_lost(_guard_settings(at.prog_id))}
    if lost:
        paths = (pin.path for pin in visible.pins_below("clsact"))
        lost -= {note.filter for note in clsact.read_notes(paths)}
    for place in lost:
        tc.detach(place.ifindex, place.handle)
    return len(lost)


def _guard_settings(prog_id: int) -> int | None:
    """The settings map of a program at an interface, if it is ours."""
    name, maps = _program(prog_id)
    return maps.get("odm_settings") if name == packet_sockets.PROGRAM else None


def _detach(link_ids: set[int]) -> None:
    if link_ids:
        for fd in libbpf.links(libbpf.LINK_CGROUP):
            if libbpf.link_info(fd).id in link_ids:
                libbpf.link_detach(fd)


def _program(prog_id: int) -> tuple[str | None, dict[str, int]]:
    """Its name among ours, if it has one, and the maps of ours that it holds, by their names."""
    try:
        with libbpf.opened(libbpf.prog_by_id(prog_id)) as fd:
            return _identify(fd)
    except DatapathError:  # gone meanwhile
        return None, {}


def _identify(prog_fd: int) -> tuple[str | None, dict[str, int]]:
    info = libbpf.prog_info(prog_fd)
    if not info.name.startswith("odm_") and info.name not in BY_KERNEL_NAME:
        return None, {}
    # What this version doesn't know keeps the name that the kernel has.
    return BY_KERNEL_NAME.get(info.name, info.name), _maps(info.map_ids)


def _maps(map_ids: tuple[int, ...]) -> dict[str, int]:
    maps = {}
    for map_id in map_ids:
        with libbpf.opened(libbpf.map_by_id(map_id)) as fd:
            name = libbpf.map_info(fd).name
        maps[_MAP_NAMES.get(name, name)] = map_id
    return maps


def _settings(settings_id: int | None) -> abi.Settings | None:
    """What programs with this map of settings were told; None if it is gone, or no map of ours."""
    if settings_id is None:
        return None
    try:
        fd = libbpf.map_by_id(settings_id)
        opened = libbpf.Map(fd, ct.c_uint32, abi.Settings, "odm_settings")
    except DatapathError:
        return None
    try:
        row = opened.get(0)
        assert row is None or isinstance(row, abi.Settings)
        return row
    finally:
        opened.close()
