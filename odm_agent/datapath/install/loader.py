"""Compile (or take what was compiled before), load, pin, exit: what it leaves behind are pins.

Run as a process of its own (`isolated.run`), for the compiler's sake. It attaches nothing and
changes nothing that is in force: `swap` does, when this has succeeded.
"""

import argparse
import ctypes as ct
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from odm_agent.core.errors import DatapathError, OdmError
from odm_agent.datapath import catalogue, libbpf
from odm_agent.datapath.catalogue import IDENTITY
from odm_agent.datapath.guards import creation
from odm_agent.datapath.install import compiler, kept, tracepoints
from odm_agent.datapath.install.compiled import Compiled, Linked, with_maps

_PR_SET_PDEATHSIG: Final = 1
#: A program that is called so iterates over what the rest of its name says.
_ITERATES: Final = "bpf_iter__"


def main(arguments: list[str] | None = None) -> int:
    """The loader process; exit code 1 and a message on stderr if anything fails."""
    parser = argparse.ArgumentParser(prog="odm_agent.datapath.install.loader", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where programs and maps are pinned")
    parser.add_argument("--kept", type=Path, help="where what is compiled is kept for next time")
    parser.add_argument("--check", action="store_true", help="load everything, keep nothing")
    options = parser.parse_args(arguments)
    _die_with_parent()
    try:
        if options.check:
            _loaded({}, _compiled)
        else:
            load(options.folder, options.kept)
    except OdmError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _die_with_parent() -> None:
    """An agent that is killed while it waits for us must not find programs pinned afterwards."""
    ct.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def load(folder: Path, keep: Path | None = None) -> None:
    """Pin this version's programs as `FOLDER/programs/odm_*`, working on the maps `FOLDER/odm_*`.

    Maps that are pinned there already are used (their shape is the caller's to check); the others
    are made. Each program holds settings and identity, whether it reads them or not: so whose it is
    can be told when all pins are lost. `keep`: the folder of what was compiled before.
    """
    pinned = {name: path for name in catalogue.MAPS if (path := folder / name).exists()}
    compiled = _compiled if keep is None else partial(_kept_or_compiled, keep)
    maps, programs = _loaded(pinned, compiled)
    for name in maps.keys() - pinned.keys():
        libbpf.pin(maps[name], folder / name)
    target = folder / "programs"
    target.mkdir(mode=0o700)
    for name, fd in programs.items():
        for held in (IDENTITY, "odm_settings"):
            libbpf.hold_map(fd, maps[held])
        libbpf.pin(fd, target / name)


Descriptors = dict[str, int]
#: What makes programs of the flags that define what there is of them.
_Compile = Callable[[tuple[str, ...]], Compiled]


def _compiled(flags: tuple[str, ...]) -> Compiled:
    return compiler.compiled(flags, _wanted())


def _kept_or_compiled(folder: Path, flags: tuple[str, ...]) -> Compiled:
    name = kept.key(flags)
    if found := kept.read(folder, name):
        return found
    made = _compiled(flags)
    try:
        kept.write(folder, name, made)
    except DatapathError as error:
        print(f"the programs are compiled again at the next start: {error}")
    return made


def _wanted() -> tuple[str, ...]:
    """The programs that can be compiled for this kernel."""
    wanted = [*catalogue.CGROUP, *catalogue.ELSEWHERE]
    if tracepoints.compiler_flags():
        wanted += catalogue.TRACEPOINTS
    if creation.compiler_flags():
        wanted.append(creation.PROGRAM)
    return tuple(wanted)


def _loaded(pinned: Mapping[str, Path], compile: _Compile) -> tuple[Descriptors, Descriptors]:
    """Descriptors of maps and programs, by name; MPTCP is left out where the kernel refuses it."""
    flags = _flags()
    if not libbpf.struct_offsets({"mptcp_sock": ("token",)}):
        print(f"{catalogue.NO_MPTCP}: the kernel has none, or no type information about them (BTF)")
        return _load(pinned, compile(flags))
    try:
        return _load(pinned, compile((*flags, "-DODM_WITH_MPTCP")))
    except DatapathError as error:
        # A failure that is not about MPTCP is raised by this.
        found = _load(pinned, compile(flags))
        said = str(error).replace("\n", " ")
        print(f"{catalogue.NO_MPTCP}: the kernel has them, but refused what serves them: {said}")
        return found


def _flags() -> tuple[str, ...]:
    flags = [*tracepoints.compiler_flags(), *creation.compiler_flags()]
    if cookie := libbpf.struct_offsets({"sock_common": ("skc_cookie",)}):
        flags.append(f"-DODM_SOCK_COOKIE={cookie['sock_common', 'skc_cookie']}")
    return tuple(flags)


def _load(pinned: Mapping[str, Path], compiled: Compiled) -> tuple[Descriptors, Descriptors]:
    """Descriptors stay open for as long as this process lives."""
    types = libbpf.load_types(compiled.types, "making the maps")
    maps = {
        each.name: libbpf.get_pinned(pinned[each.name])
        if each.name in pinned
        else libbpf.create_map(each, types)
        for each in compiled.maps
    }
    numbers = dict(enumerate(maps.values()))
    programs = {
        name: _load_program(name, program, _bound(compiled, name, numbers))
        for name, program in (catalogue.CGROUP | catalogue.ELSEWHERE).items()
    }
    programs |= _load_tracepoints(compiled, numbers)
    programs |= _load_creation(compiled, numbers)
    return maps, programs


def _bound(compiled: Compiled, name: str, numbers: dict[int, int]) -> Linked:
    linked = compiled.programs[name]
    return Linked(with_maps(linked.instructions, numbers), linked.types, linked.functions)


def _load_program(name: str, program: catalogue.Program, linked: Linked) -> int:
    iterated = name.removeprefix(_ITERATES)
    return libbpf.load(
        iterated,
        program.type,
        program.attach_type,
        linked.instructions,
        types=linked.types,
        functions=linked.functions,
        at_function=iterated if iterated != name else "",
    )


def _load_tracepoints(compiled: Compiled, numbers: dict[int, int]) -> Descriptors:
    """All of them, or none where the kernel can't have them."""
    if not tracepoints.compiler_flags():
        print(f"{tracepoints.LACKING}: the kernel does not say where it keeps them (BTF)")
        return {}
    try:
        return {
            name: _load_program(name, program, _bound(compiled, name, numbers))
            for name, program in catalogue.TRACEPOINTS.items()
        }
    except DatapathError as error:
        print(f"{tracepoints.LACKING}: {error}")
        return {}


def _load_creation(compiled: Compiled, numbers: dict[int, int]) -> Descriptors:
    """The program at the creation of sockets, if this kernel runs it."""
    if way := creation.way():
        linked = _bound(compiled, creation.PROGRAM, numbers)
        try:
            return {
                creation.PROGRAM: creation.load(
                    way, linked.instructions, linked.types, linked.functions
                )
            }
        except DatapathError as error:
            why = str(error)
    else:
        why = creation.hindrances()
    print(f"{creation.LACKING}: {why}")
    return {}


if __name__ == "__main__":
    sys.exit(main())
