"""Our links whose pins can't be seen: they go on enforcing, so they are found by asking the kernel.

It happens when a bpf file system is mounted over ours (the pins are below, and hold), when all
pins are removed but somebody keeps the links open, and when `agent.pin_dir` is changed. Ours is
what has a name of ours and serves our network namespace (odm_settings): agents in other
namespaces have their own, on the same cgroup perhaps.
"""

import ctypes as ct
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from odm_agent.datapath import abi, census, clsact, frames, libbpf, tc, tcx
from odm_agent.datapath.catalogue import BY_KERNEL_NAME, TRACEPOINTS
from odm_agent.datapath.pins import attached, links_folder, make_folder
from odm_agent.datapath.shapes import MAPS
from odm_agent.errors import DatapathError

#: A program's name, the index of an interface, or with it a handle.
_OURS: Final = re.compile(r"odm_|\d+(-\d+(-made)?)?$")
#: The kernel keeps 15 characters of a name.
_MAP_NAMES: Final = {name[:15]: name for name in MAPS}


@dataclass(frozen=True, slots=True)
class Found:
    """A link of ours. `pinned` is where, as far as it can be seen; `maps` are name -> map id."""

    name: str
    link: libbpf.LinkInfo
    maps: dict[str, int]
    pinned: Path | None


def find(netns_cookie: int, cgroup_id: int | None = None) -> list[Found]:
    """All links of ours that serve the namespace, at one cgroup or at any."""
    visible: dict[int, Path] | None = None
    found = []
    for fd in libbpf.links(libbpf.LINK_CGROUP):
        link = libbpf.link_info(fd)
        if not link.cgroup_id or cgroup_id not in (None, link.cgroup_id):
            continue
        name, maps = _program(link.prog_id)
        if name is not None and _serves(maps.get("odm_settings")) == netns_cookie:
            visible = _visible_pins() if visible is None else visible
            found.append(Found(name, link, maps, visible.get(link.id)))
    return found


def adopt(pin_dir: Path, netns_cookie: int, cgroup_id: int) -> int:
    """Pin what enforces already, but is pinned nowhere, in `pin_dir`; how many links that were.

    DatapathError if it is pinned somewhere else: another agent may be working on it.
    """
    found = find(netns_cookie, cgroup_id)
    elsewhere = {each.pinned.parent.parent for each in found if each.pinned is not None}
    elsewhere.discard(pin_dir)
    if elsewhere:
        folder = min(elsewhere)
        raise DatapathError(
            f"programs of ours for this network namespace and cgroup are pinned in {folder}, not"
            f" in {pin_dir}; set `agent.pin_dir` to {folder}, or remove them with"
            f" `odm-agent detach --pin-dir {folder}` (which ends enforcement)"
        )
    lost = [each for each in found if each.pinned is None]
    if not lost:
        return 0
    make_folder(pin_dir)
    # If there were ever two sets, that of the youngest link is what an agent filled last.
    newest = max(lost, key=lambda each: each.link.id).maps["odm_settings"]
    kept = [each for each in lost if each.maps["odm_settings"] == newest]
    for map_name, map_id in {k: v for each in kept for k, v in each.maps.items()}.items():
        with libbpf.opened(libbpf.map_by_id(map_id)) as fd:
            (pin_dir / map_name).unlink(missing_ok=True)
            libbpf.pin(fd, pin_dir / map_name)
    _pin_others(pin_dir, newest)
    adopted = {each.link.id: each.name for each in kept}
    for fd in libbpf.links(libbpf.LINK_CGROUP):
        if name := adopted.get(libbpf.link_info(fd).id):
            path = links_folder(pin_dir) / name
            path.unlink(missing_ok=True)
            libbpf.pin(fd, path)
    _detach({each.link.id for each in lost} - adopted.keys())
    return len(adopted)


def _pin_others(pin_dir: Path, settings_id: int) -> None:
    """What belongs to the same set and is not attached to a cgroup."""

    def is_of_set(prog_fd: int, name: str) -> bool:
        found, maps = _identify(prog_fd)
        return found == name and maps.get("odm_settings") == settings_id

    for fd in libbpf.programs():
        if is_of_set(fd, frames.PROGRAM):
            _pin(fd, pin_dir / frames.PROGRAM)
    for fd in libbpf.links(libbpf.LINK_TCX):
        ifindex = libbpf.link_ifindex(fd)
        with suppress(DatapathError), libbpf.opened(_program_of(fd)) as prog_fd:
            if ifindex and is_of_set(prog_fd, frames.PROGRAM):
                tcx.folder(pin_dir).mkdir(mode=0o700, exist_ok=True)
                _pin(fd, tcx.folder(pin_dir) / str(ifindex))
    for place in clsact.standing():
        with suppress(DatapathError), libbpf.opened(libbpf.prog_by_id(place.prog_id)) as prog_fd:
            if is_of_set(prog_fd, frames.PROGRAM):
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


def remove(netns_cookie: int) -> int:
    """Detach all that is ours and pinned nowhere that can be seen; how many links that were."""
    lost = {each.link.id for each in find(netns_cookie) if each.pinned is None}
    _detach(lost)
    return len(lost) + _remove_links(netns_cookie) + _remove_filters(netns_cookie)


def _remove_links(netns_cookie: int) -> int:
    """Those at interfaces; how many."""
    removed = 0
    visible: dict[int, Path] | None = None
    for fd in libbpf.links(libbpf.LINK_TCX):
        if not libbpf.link_ifindex(fd):  # dead already
            continue
        link = libbpf.link_info(fd)
        if _is_guard(link.prog_id, netns_cookie):
            visible = _visible_pins() if visible is None else visible
            if link.id not in visible:
                libbpf.link_detach(fd)
                removed += 1
    return removed


def _remove_filters(netns_cookie: int) -> int:
    """Those at interfaces where links are unknown; how many."""
    lost = {at for at in clsact.standing() if _is_guard(at.prog_id, netns_cookie)}
    if lost:
        lost -= {note.filter for note in clsact.read_notes(_pins_below("clsact"))}
    for place in lost:
        tc.detach(place.ifindex, place.handle)
    return len(lost)


def _is_guard(prog_id: int, netns_cookie: int) -> bool:
    name, maps = _program(prog_id)
    return name == frames.PROGRAM and _serves(maps.get("odm_settings")) == netns_cookie


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


def _serves(settings_id: int | None) -> int | None:
    """The namespace that programs with these settings are for."""
    if settings_id is None:
        return None
    try:
        fd = libbpf.map_by_id(settings_id)
        settings = libbpf.Map(fd, ct.c_uint32, abi.Settings, "odm_settings")
    except DatapathError:  # gone meanwhile, or of a shape that is not ours
        return None
    try:
        row = settings.get(0)
        return None if row is None else int(row.home_netns)
    finally:
        settings.close()


def _visible_pins() -> dict[int, Path]:
    """link id -> its pin, of all links with a name of ours on any bpf file system."""
    found = {}
    for path in _pins_below("links", "frames"):
        with libbpf.opened(libbpf.get_pinned(path)) as fd:
            found[libbpf.link_info(fd).id] = path
    return found


def _pins_below(*folders: str) -> Iterator[Path]:
    """What is pinned in folders of these names with a name as ours have."""
    for mount in _bpf_mounts():
        for folder, _, files in os.walk(mount):
            if os.path.basename(folder) in folders:
                yield from (Path(folder, name) for name in files if _OURS.match(name))


def _bpf_mounts() -> list[str]:
    """Where bpf file systems are mounted; a path that was mounted over shows what is on top."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, filesystem = line.partition(" - ")
        if filesystem.startswith("bpf "):
            mounts.append(fields.split()[4].encode().decode("unicode_escape"))
    return mounts
