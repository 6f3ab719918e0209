"""The packages that the agent needs, and whether they really load its programs."""

import importlib.util
import sys
from collections.abc import Iterator
from typing import Final

from odm_agent import isolated
from odm_agent.cli.doctor import bpf
from odm_agent.cli.doctor.findings import Finding, Host, missing, ok, warning
from odm_agent.datapath import catalogue

LOADER_TIMEOUT_S: Final = 60.0


def interpreter(host: Host) -> Iterator[Finding]:
    """The distribution's Python: only its packages hold the BPF Compiler Collection."""
    if sys.prefix == sys.base_prefix and sys.base_prefix != "/usr":
        detail = f"{sys.executable} is not the distribution's"
    elif sys.base_prefix != "/usr":
        detail = f"this environment was made from {sys.base_prefix}/bin/python3"
    else:
        yield ok("Python", f"{sys.executable}, from {sys.base_prefix}/bin/python3")
        return
    yield missing("Python", detail, "/usr/bin/python3 -m venv --system-site-packages .venv")


def compiler(host: Host) -> Iterator[Finding]:
    """python3-bpfcc, and that it is BCC: PyPI's `bcc` is something else."""
    found = importlib.util.find_spec("bcc")
    if found is None:
        if importlib.util.find_spec("_distutils_hack") is not None or sys.prefix != "/usr":
            remedy = (
                "apt install python3-bpfcc, and make the environment with --system-site-packages"
            )
        else:
            remedy = "apt install python3-bpfcc"
        yield missing("BCC", "the Python module bcc is not there", remedy)
    elif found.origin is None or "dist-packages" not in found.origin:
        remedy = "pip uninstall bcc (another project of that name); apt install python3-bpfcc"
        yield missing("BCC", f"{found.origin} is not the distribution's", remedy)
    else:
        yield ok("BCC", found.origin)


def libbpf(host: Host) -> Iterator[Finding]:
    """The library through which the agent reads and writes its maps."""
    try:
        bpf.library()
    except OSError as error:
        yield missing("libbpf", str(error), "apt install libbpf1")
    else:
        yield ok("libbpf", bpf.LIBRARY)


def load_test(host: Host) -> Iterator[Finding]:
    """Compile and load the real programs, in a process of their own, and forget them."""
    try:
        done = isolated.run(isolated.LOADER, "--check", timeout_s=LOADER_TIMEOUT_S)
    except isolated.TooSlow:
        detail = f"compiling and loading took more than {LOADER_TIMEOUT_S:.0f} s"
        yield missing("load test", detail, "check again when the host is less busy")
        return
    if done.returncode == 0:
        yield ok("load test", "the kernel took all programs")
        for line in done.stdout.splitlines():
            if line.startswith(catalogue.NO_MPTCP):
                remedy = (
                    "run a kernel with CONFIG_MPTCP and CONFIG_DEBUG_INFO_BTF; if this one has"
                    " them, report what it said"
                )
                yield warning("MPTCP", line, remedy)
    else:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        command = f"{sys.executable} -I -m {isolated.LOADER} --check"
        remedy = f"put right what is missing above; all that was said: {command}"
        yield missing("load test", said[-1], remedy)
