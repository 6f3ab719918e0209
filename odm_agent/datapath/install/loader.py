"""Compile, load, pin, exit: the only module that knows the compiler.

Run as a process of its own (`isolated.run`), since BCC keeps LLVM, about a hundred megabytes, in
whatever process uses it; what it leaves behind are pins. It attaches nothing and changes nothing
that is in force: `swap` does, when this has succeeded.
"""

import argparse
import ctypes as ct
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from odm_agent.core.errors import DatapathError, OdmError
from odm_agent.datapath import catalogue, libbpf
from odm_agent.datapath.catalogue import IDENTITY, MAPS
from odm_agent.datapath.guards import creation
from odm_agent.datapath.install import c_text, functions, pins, tracepoints

_PR_SET_PDEATHSIG: Final = 1
#: Where checks pin what they make, in folders named after their processes.
_CHECKED: Final = Path("/sys/fs/bpf")
_CHECK: Final = "odm-check-"


def main(arguments: list[str] | None = None) -> int:
    """The loader process; exit code 1 and a message on stderr if anything fails."""
    parser = argparse.ArgumentParser(prog="odm_agent.datapath.install.loader", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where programs and maps are pinned")
    parser.add_argument("--check", action="store_true", help="load everything, keep nothing")
    options = parser.parse_args(arguments)
    _die_with_parent()
    try:
        if options.check:
            check()
        else:
            load(options.folder)
    except OdmError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _die_with_parent() -> None:
    """An agent that is killed while it waits for us must not find programs pinned afterwards."""
    ct.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def check() -> None:
    """Prove that this kernel takes every program; nothing is attached or left behind."""
    _remove_left()
    pin_dir = _CHECKED / f"{_CHECK}{os.getpid()}"
    pins.make_folder(pin_dir)
    try:
        claimed = pins.claim(pin_dir)
        _compile(pin_dir)
    finally:
        pins.remove(pin_dir)
    if claimed is not None:
        os.close(claimed)


def _remove_left() -> None:
    """A check that is killed can't remove its pins: the next one does."""
    for folder in _CHECKED.glob(f"{_CHECK}*"):
        if Path("/proc", folder.name.removeprefix(_CHECK)).exists():
            continue
        with suppress(DatapathError):  # a check in another PID namespace works there
            pins.require_unclaimed(folder)
            pins.remove(folder)


def load(folder: Path) -> None:
    """Pin this version's programs as `FOLDER/programs/odm_*`, working on the maps `FOLDER/odm_*`.

    Maps that are pinned there already are used (and their shape is the caller's to check: BCC
    takes any); the others are made. Each program holds settings and identity, whether it reads
    them or not: so whose it is can be told when all pins are lost.
    """
    programs = _compile(folder)
    target = folder / "programs"
    target.mkdir(mode=0o700)
    held = [libbpf.get_pinned(folder / name) for name in (IDENTITY, "odm_settings")]
    for name, fd in programs.items():
        for map_fd in held:
            libbpf.hold_map(fd, map_fd)
        libbpf.pin(fd, target / name)


def _compile(pin_dir: Path) -> dict[str, int]:
    """program name -> descriptor. MPTCP is left out where the kernel has none, or refuses it."""
    # BCC changes into the folder named here, and prints what it has to say to descriptor 2.
    os.environ["BCC_KERNEL_SOURCE"] = str(c_text.folder())
    try:
        from bcc import BPF
    except ImportError as error:
        raise DatapathError(
            "the BPF Compiler Collection is missing; install python3-bpfcc, and run in a venv made"
            " from /usr/bin/python3 with --system-site-packages"
        ) from error
    if not libbpf.struct_offsets({"mptcp_sock": ("token",)}):
        print(f"{catalogue.NO_MPTCP}: the kernel has none, or no type information about them (BTF)")
        return _load_programs(BPF, pin_dir, with_mptcp=False)
    try:
        return _load_programs(BPF, pin_dir, with_mptcp=True)
    except DatapathError as error:
        # A failure that is not about MPTCP is raised by this.
        programs = _load_programs(BPF, pin_dir, with_mptcp=False)
        said = str(error).replace("\n", " ")
        print(f"{catalogue.NO_MPTCP}: the kernel has them, but refused what serves them: {said}")
        return programs


def _load_programs(compiler: Any, pin_dir: Path, *, with_mptcp: bool) -> dict[str, int]:
    flags = ["-O2", "-Wall", "-Werror", f'-DODM_PINS="{pin_dir}"']
    flags += tracepoints.compiler_flags()
    flags += creation.compiler_flags()
    if cookie := libbpf.struct_offsets({"sock_common": ("skc_cookie",)}):
        flags.append(f"-DODM_SOCK_COOKIE={cookie['sock_common', 'skc_cookie']}")
    if with_mptcp:
        flags.append("-DODM_WITH_MPTCP")
    try:
        module = compiler(text=c_text.amalgamated(), cflags=flags)
        _keep.append(module)  # its destructor closes the descriptors
        programs = {
            name: _load_program(module, name, program)
            for name, program in (catalogue.CGROUP | catalogue.ELSEWHERE).items()
        }
    except Exception as error:
        raise DatapathError(f"compiling or loading the eBPF programs: {error}") from error
    programs |= _load_tracepoints(module)
    programs |= _load_creation(module)
    missing = [name for name in MAPS if not (pin_dir / name).exists()]
    assert not missing, f"bpf/odm_maps.h lacks {missing}"
    return programs


def _load_program(module: Any, name: str, program: catalogue.Program) -> int:
    """The compiler loads what calls no function of ours: it knows what iterators need."""
    linked = _link(module, name)
    if not linked.functions:
        return int(module.load_func(name, program.type, None, program.attach_type).fd)
    return libbpf.load(
        name,
        program.type,
        program.attach_type,
        linked.instructions,
        btf=linked.btf,
        functions=linked.functions,
    )


def _link(module: Any, name: str) -> functions.Linked:
    return functions.link(name, module.dump_func, functions.declared(c_text.amalgamated()))


def _load_tracepoints(module: Any) -> dict[str, int]:
    """All of them, or none where the kernel can't have them."""
    if not tracepoints.compiler_flags():
        print(f"{tracepoints.LACKING}: the kernel does not say where it keeps them (BTF)")
        return {}
    try:
        return {
            name: _load_program(module, name, program)
            for name, program in catalogue.TRACEPOINTS.items()
        }
    except Exception as error:
        print(f"{tracepoints.LACKING}: {error}")
        return {}


def _load_creation(module: Any) -> dict[str, int]:
    """The program at the creation of sockets, if this kernel runs it."""
    if way := creation.way():
        try:
            linked = _link(module, creation.PROGRAM)
            return {
                creation.PROGRAM: creation.load(
                    way, linked.instructions, linked.btf, linked.functions
                )
            }
        except DatapathError as error:
            why = str(error)
    else:
        why = creation.hindrances()
    print(f"{creation.LACKING}: {why}")
    return {}


_keep: list[Any] = []


if __name__ == "__main__":
    sys.exit(main())
