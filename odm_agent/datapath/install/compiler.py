"""The BPF Compiler Collection: C text in, code and maps out. The only module that knows it.

It keeps LLVM, about a hundred megabytes, in whatever process uses it, and makes the maps to compile
at all: they go with that process.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from odm_agent.core.errors import DatapathError
from odm_agent.datapath import catalogue, libbpf
from odm_agent.datapath.install import c_text, functions
from odm_agent.datapath.install.compiled import Compiled, Linked, with_maps

_FLAGS: Final = ("-O2", "-Wall", "-Werror")


def compiled(flags: Sequence[str], programs: Sequence[str]) -> Compiled:
    """These programs, compiled with what `flags` define. DatapathError says why it can't be."""
    # BCC changes into the folder named here, and prints what it has to say to descriptor 2.
    os.environ["BCC_KERNEL_SOURCE"] = str(c_text.folder())
    try:
        from bcc import BPF
        from bcc.libbcc import lib
    except ImportError as error:
        raise DatapathError(
            "the BPF Compiler Collection is missing; install python3-bpfcc, and run in a venv made"
            " from /usr/bin/python3 with --system-site-packages"
        ) from error
    try:
        module = BPF(text=c_text.amalgamated(), cflags=[*_FLAGS, *flags])
    except Exception as error:
        raise DatapathError(f"compiling the eBPF programs: {error}") from error
    descriptors = {name: lib.bpf_table_fd(module.module, name.encode()) for name in catalogue.MAPS}
    missing = [name for name, fd in descriptors.items() if fd < 0]
    assert not missing, f"bpf/odm_maps.h lacks {missing}"
    numbers = {fd: number for number, fd in enumerate(descriptors.values())}
    return Compiled(
        {name: _linked(module, name, numbers) for name in programs},
        tuple(replace(libbpf.map_info(fd), id=0, name=name) for name, fd in descriptors.items()),
        libbpf.types_of(descriptors[catalogue.IDENTITY]),
    )


def _linked(module: Any, name: str, numbers: dict[int, int]) -> Linked:
    linked = functions.link(name, module.dump_func, functions.declared(c_text.amalgamated()))
    return Linked(with_maps(linked.instructions, numbers), linked.types, linked.functions)
