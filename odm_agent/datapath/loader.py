"""Compile, load, attach, pin, exit: the only module that knows the compiler.

Run as a process of its own (`python -m odm_agent.datapath.loader`), since BCC keeps LLVM, about
a hundred megabytes, in whatever process uses it; what it leaves behind are pins.
"""

import argparse
import ctypes as ct
import logging
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from odm_agent.datapath import abi, census, frames, libbpf, pins, source
from odm_agent.errors import DatapathError, OdmError

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a load is for. `netns_cookie` is the agent's own network namespace."""

    pin_dir: Path
    cgroup: Path
    netns_cookie: int
    mark_mask: int
    protocol: int


def ensure(wanted: Wanted, *, timeout_s: float = 180) -> bool:
    """Make `pin_dir` hold this version's programs, attached to `cgroup`; true if any were loaded.

    Pins that fit (ABI tag, source hash, cgroup) are adopted as they are. DatapathError says what
    is in the way.
    """
    identity = pins.require_abi(wanted.pin_dir)
    if (
        identity is not None
        and identity.source_hash == source.source_hash()
        and pins.is_enforcing(wanted.pin_dir, wanted.cgroup.stat().st_ino)
    ):
        return False
    command = [sys.executable, "-m", "odm_agent.datapath.loader"]
    for option, value in asdict(wanted).items():
        command += [f"--{option.replace('_', '-')}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise DatapathError(done.stderr.strip() or "the loader of the eBPF programs failed")
    for line in done.stdout.splitlines():
        log.warning(line)
    return True


def main(arguments: list[str] | None = None) -> int:
    """The loader process; exit code 1 and a message on stderr if anything fails."""
    parser = argparse.ArgumentParser(prog="odm_agent.datapath.loader", description=__doc__)
    parser.add_argument("--pin-dir", type=Path)
    parser.add_argument("--cgroup", type=Path)
    parser.add_argument("--netns-cookie", type=int)
    parser.add_argument("--mark-mask", type=int)
    parser.add_argument("--protocol", type=int)
    parser.add_argument("--check", action="store_true", help="load everything, attach nothing")
    options = parser.parse_args(arguments)
    _die_with_parent()
    try:
        if options.check:
            check()
        else:
            named = vars(options)
            del named["check"]
            load(Wanted(**named))
    except OdmError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _die_with_parent() -> None:
    """An agent that is killed while it waits for us must not find programs pinned afterwards."""
    ct.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def check() -> None:
    """Prove that this kernel takes every program; nothing is attached or left behind."""
    pin_dir = Path(f"/sys/fs/bpf/odm-check-{os.getpid()}")
    pins.make_folder(pin_dir)
    try:
        _compile(pin_dir)
    finally:
        pins.remove(pin_dir)


def load(wanted: Wanted) -> None:
    """Compile, fill in what no hook may run without, then attach (or replace) and pin.

    A first load that fails half way leaves nothing; a replacement that fails leaves the links
    as they were, each with a program that works on the same maps.
    """
    pin_dir = wanted.pin_dir
    first = pins.require_abi(pin_dir) is None
    pins.make_folder(pin_dir)
    try:
        programs = _compile(pin_dir)
        _write_settings(wanted)
        census.install(pin_dir, programs[census.PROGRAM])
        _attach(pin_dir, wanted.cgroup, programs)
        frames.install(pin_dir, programs[frames.PROGRAM])
        _write_identity(pin_dir)
    except BaseException:
        if first:
            pins.remove(pin_dir)
        raise


def _compile(pin_dir: Path) -> dict[str, int]:
    """program name -> descriptor. MPTCP is left out where the kernel can't lead back to it."""
    # BCC changes into the folder named here, and prints what it has to say to descriptor 2.
    os.environ["BCC_KERNEL_SOURCE"] = str(source.folder())
    try:
        from bcc import BPF
    except ImportError as error:
        raise DatapathError(
            "the BPF Compiler Collection is missing; install python3-bpfcc, and run in a venv made"
            " from /usr/bin/python3 with --system-site-packages"
        ) from error
    try:
        return _load_programs(BPF, pin_dir, with_mptcp=True)
    except DatapathError:
        programs = _load_programs(BPF, pin_dir, with_mptcp=False)
        print("this kernel can't lead from a subflow to its MPTCP socket: those are not served")
        return programs


def _load_programs(compiler: Any, pin_dir: Path, *, with_mptcp: bool) -> dict[str, int]:
    flags = ["-O2", "-Wall", "-Werror", f'-DODM_PINS="{pin_dir}"']
    if with_mptcp:
        flags.append("-DODM_WITH_MPTCP")
    try:
        module = compiler(text=source.amalgamated(), cflags=flags)
        _keep.append(module)  # its destructor closes the descriptors
        return {
            name: module.load_func(name, kind, None, attach_type).fd
            for name, (kind, attach_type) in (pins.PROGRAMS | pins.OTHER_PROGRAMS).items()
        }
    except Exception as error:
        raise DatapathError(f"compiling or loading the eBPF programs: {error}") from error


_keep: list[Any] = []


def _write_settings(wanted: Wanted) -> None:
    """Before anything is attached: a hook that doesn't know home takes every socket for foreign."""
    settings = _open(wanted.pin_dir, "odm_settings", abi.Settings)
    try:
        row = settings.get(0)
        assert row is not None  # an array has all its rows
        if row.home_netns not in (0, wanted.netns_cookie):
            raise DatapathError(
                f"the pins in {wanted.pin_dir} serve another network namespace; give each agent"
                " its own `agent.pin_dir`, or run `odm-agent detach` where that agent ran"
            )
        row.home_netns = wanted.netns_cookie
        row.mark_mask = wanted.mark_mask
        row.mark_shift = (wanted.mark_mask & -wanted.mark_mask).bit_length() - 1
        row.protocol = wanted.protocol
        row.epoch = row.epoch or 1
        settings.put(0, row)
    finally:
        settings.close()


def _attach(pin_dir: Path, cgroup: Path, programs: dict[str, int]) -> None:
    cgroup_fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in pins.PROGRAMS:
            _attach_one(pins.links_folder(pin_dir) / name, cgroup_fd, programs[name])
    finally:
        os.close(cgroup_fd)


def _attach_one(path: Path, cgroup_fd: int, prog_fd: int) -> None:
    """Replace in place where a living link is there; make one where not."""
    wanted = os.fstat(cgroup_fd).st_ino
    if path.exists():
        link_fd = libbpf.get_pinned(path)
        try:
            if libbpf.link_info(link_fd).cgroup_id == wanted:
                libbpf.link_update(link_fd, prog_fd)
                return
        finally:
            os.close(link_fd)
    attach_type = pins.PROGRAMS[path.name][1]
    link_fd = libbpf.link_create(prog_fd, cgroup_fd, attach_type)
    try:
        path.unlink(missing_ok=True)  # of a cgroup that is gone, or that we no longer attach to
        libbpf.pin(link_fd, path)
    finally:
        os.close(link_fd)


def _write_identity(pin_dir: Path) -> None:
    """Last: pins that say whose they are, are whole."""
    identities = _open(pin_dir, "odm_identities", abi.Identity)
    try:
        row = abi.Identity(abi_tag=abi.ABI_TAG)
        row.source_hash[:] = source.source_hash()
        identities.put(0, row)
    finally:
        identities.close()


def _open(pin_dir: Path, name: str, value: Any) -> libbpf.Map:
    return libbpf.Map(libbpf.get_pinned(pin_dir / name), ct.c_uint32, value, name)


if __name__ == "__main__":
    sys.exit(main())
