"""Puts this version's programs in force, without a moment in which none or half of them are.

Take over what fits (`take_over`). Else prepare everything beside what is in force (`staged`): the
programs are compiled and verified, share the maps whose name both versions know, and get new ones
for the others, which the caller fills. Only then `Staged.commit` replaces the program of each link
in place. Broken off at any point, what is in force goes on, and the next start begins anew.
"""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from odm_agent import isolated
from odm_agent.core.errors import DatapathError
from odm_agent.datapath import abi, catalogue, census, libbpf
from odm_agent.datapath.catalogue import IDENTITY, MAPS, OF_STORAGE, STORAGE
from odm_agent.datapath.guards import creation, packet_sockets
from odm_agent.datapath.install import c_text, deployment, lost_pins, pins, stamp, tracepoints
from odm_agent.datapath.install.deployment import Deployment
from odm_agent.datapath.install.sharing import shareable
from odm_agent.datapath.trust import require_trust

log = logging.getLogger(__name__)

_LOAD_TIMEOUT_S: Final = 180.0


@dataclass(frozen=True, slots=True)
class Replaced:
    """What a commit did: links whose program was replaced or made, maps made anew and removed."""

    programs: int
    new_maps: tuple[str, ...]
    removed_maps: tuple[str, ...]


def take_over(wanted: Deployment) -> bool:
    """Whether this version's programs are in force as they should be; nothing is loaded then.

    Links of ours whose pins were lost are pinned anew first. DatapathError says what is in the way.
    """
    require_trust(wanted.pin_dir)
    cgroup_id = wanted.cgroup.stat().st_ino
    if not pins.is_enforcing(wanted.pin_dir, cgroup_id):
        found = lost_pins.repin(wanted.pin_dir, wanted.netns_cookie, cgroup_id)
        if found:
            log.warning(
                "the pins were lost, the programs were not: pinned them anew",
                extra={"pins": str(wanted.pin_dir), "programs": found},
            )
    lost_pins.pin_maps(wanted.pin_dir)
    if not up_to_date(wanted):
        return False
    if pins.next_folder(wanted.pin_dir).exists():  # of an attempt that was broken off
        with pins.locked(wanted.pin_dir):
            shutil.rmtree(pins.next_folder(wanted.pin_dir), ignore_errors=True)
    return True


def up_to_date(wanted: Deployment) -> bool:
    """Whether the pins are of this version, whole, and enforce at the wanted cgroup."""
    pin_dir = wanted.pin_dir
    return (
        stamp.read(pin_dir) == stamp.Identity(abi.ABI_TAG, abi.STORAGE_TAG, c_text.source_hash())
        and all((pin_dir / name).exists() for name in (*MAPS, *catalogue.ELSEWHERE_PINS))
        and tracepoints.complete(pin_dir)
        and creation.complete(pin_dir)
        and pins.is_enforcing(pin_dir, wanted.cgroup.stat().st_ino)
        and deployment.fit(wanted)
    )


class Staged:
    """Programs that wait in `folder`, with the maps that they will work on pinned beside them.

    `fresh` are the maps that no program in force reads.
    """

    def __init__(self, wanted: Deployment, fresh: frozenset[str]) -> None:
        self._wanted = wanted
        self.folder = pins.next_folder(wanted.pin_dir)
        self.fresh = fresh

    def commit(self) -> Replaced:
        """Replace the programs in force, or attach where none are; then take the old away.

        DatapathError leaves a mixture that works, but for a first start, which leaves nothing.
        """
        pin_dir = self._wanted.pin_dir
        first = stamp.read(pin_dir) is None and not pins.attached(pin_dir)
        deployment.write(self.folder, self._wanted)
        if IDENTITY not in self.fresh:
            stamp.note_change(pin_dir)
        try:
            self._attach()
        except BaseException:
            if first:
                shutil.rmtree(self.folder)
                pins.clear(pin_dir)
            raise
        for name in MAPS:
            if name in self.fresh:
                (self.folder / name).rename(pin_dir / name)
        for program, install in (
            (census.PROGRAM, census.install),
            (packet_sockets.PROGRAM, packet_sockets.install),
        ):
            with _program(self.folder, program) as prog_fd:
                install(pin_dir, prog_fd)
        self._attach_tracepoints()
        creation.install(pin_dir, self.folder)
        removed = _remove_unknown(pin_dir)
        stamp.write(pin_dir)
        shutil.rmtree(self.folder)
        new = tuple(sorted(self.fresh)) if not first else ()
        return Replaced(len(catalogue.CGROUP), new, removed)

    def _attach(self) -> None:
        cgroup_fd = os.open(self._wanted.cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in catalogue.CGROUP:
                path = pins.links_folder(self._wanted.pin_dir) / name
                with _program(self.folder, name) as prog_fd:
                    _attach_one(path, self._wanted.cgroup, cgroup_fd, prog_fd)
        finally:
            os.close(cgroup_fd)

    def _attach_tracepoints(self) -> None:
        for name in catalogue.TRACEPOINTS:
            if (self.folder / "programs" / name).exists():
                with _program(self.folder, name) as prog_fd:
                    tracepoints.install(self._wanted.pin_dir, name, prog_fd)
            else:  # this kernel can't have it
                (self._wanted.pin_dir / name).unlink(missing_ok=True)


@contextmanager
def _program(folder: Path, name: str) -> Iterator[int]:
    with libbpf.opened(libbpf.get_pinned(folder / "programs" / name)) as fd:
        yield fd


@contextmanager
def staged(
    wanted: Deployment, *, keep: Path | None = None, forget_sockets: bool = False
) -> Iterator[Staged]:
    """Compile and verify this version's programs beside those in force; nothing else is touched.

    What was compiled is kept in the folder `keep`, and not compiled again if it is there.
    Leaves nothing behind unless it is committed. DatapathError says what is in the way.
    """
    pin_dir = wanted.pin_dir
    is_new = not pin_dir.exists()
    pins.make_folder(pin_dir)
    with pins.locked(pin_dir) as lock:
        folder = pins.next_folder(pin_dir)
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was broken off
        try:
            _refuse_strangers(wanted)
            replaced = _storage_to_replace(pin_dir, forget_sockets=forget_sockets)
            shared = shareable(pin_dir, without=replaced)
            folder.mkdir(mode=0o700)
            for name in shared:
                _pin_again(pin_dir / name, folder / name)
            _run_loader(folder, keep, lock)
            yield Staged(wanted, frozenset(MAPS) - shared)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if is_new and not pins.attached(pin_dir) and pin_dir.exists():
                for empty in (pins.links_folder(pin_dir), pin_dir):
                    empty.rmdir()


def _refuse_strangers(wanted: Deployment) -> None:
    if (wanted.pin_dir / "odm_settings").exists():
        home = deployment.read(wanted.pin_dir).home_netns
        if home not in (0, wanted.netns_cookie):
            raise DatapathError(
                f"the pins in {wanted.pin_dir} serve another network namespace; give each agent"
                " its own `agent.pin_dir`, or run `odm-agent detach` where that agent ran"
            )


def _storage_to_replace(pin_dir: Path, *, forget_sockets: bool) -> frozenset[str]:
    """The storage map if it is of another kind and may be replaced; DatapathError if it may not."""
    if not (pin_dir / STORAGE).exists():
        return frozenset()
    found = stamp.read(pin_dir)
    tag = found.storage_tag if found is not None else 1
    if tag == abi.STORAGE_TAG:
        return frozenset()
    if forget_sockets:
        return frozenset({STORAGE, *OF_STORAGE})
    raise DatapathError(
        f"what the programs in {pin_dir} keep with each socket is of kind {tag}, this version's is"
        f" {abi.STORAGE_TAG}: the types of live sockets would be forgotten. What is in force goes"
        " on. Run `odm-agent upgrade --forget-sockets` when that may be, or go back to the version"
        " before"
    )


def _run_loader(folder: Path, keep: Path | None, lock: int) -> None:
    done = isolated.run(
        *(isolated.LOADER, "--folder", str(folder)),
        *(() if keep is None else ("--kept", str(keep))),
        timeout_s=_LOAD_TIMEOUT_S,
        pass_fds=(lock,),
    )
    if done.returncode:
        raise DatapathError(done.stderr.strip() or "the loader of the eBPF programs failed")
    for line in done.stdout.splitlines():
        log.warning(line)


def _attach_one(path: Path, cgroup: Path, cgroup_fd: int, prog_fd: int) -> None:
    """Replace in place where a living link is there; make one where not."""
    if path.exists():
        link_fd = libbpf.get_pinned(path)
        try:
            if libbpf.link_info(link_fd).cgroup_id == os.fstat(cgroup_fd).st_ino:
                libbpf.link_update(link_fd, prog_fd)
                return
        finally:
            os.close(link_fd)
    attach_type = catalogue.CGROUP[path.name].attach_type
    try:
        link_fd = libbpf.link_create(prog_fd, cgroup_fd, attach_type)
    except DatapathError as error:
        if libbpf.error_code(error) != errno.EPERM:
            raise
        raise DatapathError(
            f"attaching {path.name} to {cgroup}: a program of somebody else is attached there or"
            " above in such a way that no other may be (without BPF_F_ALLOW_MULTI);"
            " `bpftool cgroup tree` shows it. Detach it, or attach it with multi"
        ) from error
    try:
        path.unlink(missing_ok=True)  # of a cgroup that is gone, or that we no longer attach to
        libbpf.pin(link_fd, path)
    finally:
        os.close(link_fd)


def _remove_unknown(pin_dir: Path) -> tuple[str, ...]:
    """Take away what only another version knew; the names of its maps."""
    removed = []
    for path in pins.unknown(pin_dir):
        if path.parent == pin_dir:
            path.unlink()
            removed.append(path.name)
        else:
            pins.remove_link(path)
    return tuple(sorted(removed))


def _pin_again(path: Path, also: Path) -> None:
    with libbpf.opened(libbpf.get_pinned(path)) as fd:
        libbpf.pin(fd, also)
