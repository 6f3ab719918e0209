"""The cgroup of one `exec`: made, classified by the agent, and cleared away."""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from odm_agent.control.client import ControlClient
from odm_agent.control.scopes import Scope, parse
from odm_agent.core.errors import KernelError, OdmError
from odm_agent.kernel.cgroups import cgroup_id, current_cgroup

log = logging.getLogger(__name__)

#: rmdir(2) of a cgroup that still has processes, or children.
IN_USE = frozenset({errno.EBUSY, errno.ENOTEMPTY})


@contextlib.contextmanager
def scope_cgroup(client: ControlClient, parent: Path, scope: Scope) -> Iterator[Path]:
    """The path of a new cgroup below `parent` that the agent has classified as `scope` says.

    Gone at the end, unless processes that the command left behind still run in it: they keep
    their class, and the next `exec` removes the cgroup once they have ended.
    Raises KernelError, or the agent's refusal.
    """
    _sweep(client, parent)
    cgroup = _make(parent, scope.name)
    try:
        _classify(client, cgroup, scope)
        yield cgroup
    finally:
        _clear(client, cgroup)
        # Others' cgroups may still be in it.
        with contextlib.suppress(OSError):
            parent.rmdir()


@contextlib.contextmanager
def systemd_scope(client: ControlClient, parent: Path, scope: Scope) -> Iterator[Path]:
    """The path of the scope that systemd has made for this process, once it is classified.

    systemd removes it with its last process, and the agent then forgets it.
    """
    cgroup = parent / scope.name
    if current_cgroup(os.getpid()) != cgroup:
        raise KernelError(
            f"entering the scope {scope.name}: systemd put this process elsewhere "
            f"({current_cgroup(os.getpid())}); look at `systemctl status {scope.name}`"
        )
    _classify(client, cgroup, scope)
    yield cgroup


def _make(parent: Path, name: str) -> Path:
    cgroup = parent / name
    for _ in range(3):
        try:
            parent.mkdir(exist_ok=True)
            cgroup.mkdir()
            return cgroup
        except FileNotFoundError:
            # Another `exec` has just removed the empty parent.
            continue
        except OSError as error:
            raise KernelError(
                f"making the cgroup {cgroup}: {error.strerror}; this needs root, and a cgroup v2 "
                "tree that is mounted writable"
            ) from error
    raise KernelError(f"making the cgroup {cgroup}: {parent} vanishes again and again; try again")


def _classify(client: ControlClient, cgroup: Path, scope: Scope) -> None:
    client.call(
        "classify",
        cgroup_id=cgroup_id(cgroup),
        path=str(cgroup),
        type=scope.type.word if scope.type is not None else None,
        **{"class": scope.class_name},
    )


def _clear(client: ControlClient, cgroup: Path) -> None:
    """Remove the cgroup, then its class: what still runs in it must not lose it."""
    number = cgroup_id(cgroup)
    try:
        cgroup.rmdir()
    except OSError as error:
        if error.errno not in IN_USE:
            raise KernelError(f"removing the cgroup {cgroup}: {error.strerror}") from error
        log.debug("processes were left behind", extra={"cgroup": str(cgroup)})
        return
    try:
        client.call("unclassify", cgroup_id=number)
    except OdmError as error:
        # The agent forgets cgroups that are gone by itself; the command's own result counts more.
        log.debug("cgroup not unclassified", extra={"cgroup": str(cgroup), "error": str(error)})


def _sweep(client: ControlClient, parent: Path) -> None:
    """Remove cgroups whose `exec` has ended and whose last process has since, too."""
    try:
        entries = [entry for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for entry in entries:
        scope = parse(entry.name)
        # /proc/PID and not the cgroup alone: a scope just made is empty, too.
        if scope is not None and not Path(f"/proc/{scope.pid}").exists():
            with contextlib.suppress(FileNotFoundError):
                _clear(client, Path(entry.path))
