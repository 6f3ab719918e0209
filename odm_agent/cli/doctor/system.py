"""Privileges and kernel features, found by trying them, never by the kernel's version."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from odm_agent.cli.doctor import bpf
from odm_agent.cli.doctor.findings import Finding, Host, missing, ok, warning
from odm_agent.core.errors import KernelError
from odm_agent.datapath.install import tracepoints
from odm_agent.text import kernel_lines, mount_point

#: linux/capability.h
CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_BPF": 39}
SYSCTL: Final = Path("/proc/sys/net")


def effective_capabilities(status: str) -> int:
    """The CapEff bits in the text of a /proc/PID/status."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def privileges(host: Host) -> Iterator[Finding]:
    """Root, with the capabilities that loading and configuring take."""
    held = effective_capabilities("\n".join(kernel_lines(Path("/proc/self/status"))))
    absent = [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
    if os.geteuid() != 0:
        absent.insert(0, "root")
    if absent:
        remedy = "use sudo, or give the container these capabilities"
        yield missing("privileges", f"without {', '.join(absent)}", remedy)
    else:
        yield ok("privileges", f"root with {', '.join(CAPABILITIES)}")


def bpf_syscall(host: Host) -> Iterator[Finding]:
    """Whether bpf(2) makes maps for us."""
    try:
        bpf.try_map()
    except OSError as error:
        remedy = "run as root on a kernel with CONFIG_BPF_SYSCALL, outside a seccomp sandbox"
        yield missing("eBPF", f"bpf(2) makes no map: {error.strerror}", remedy)
    else:
        yield ok("eBPF", "bpf(2) makes maps")


def cgroup_v2(host: Host) -> Iterator[Finding]:
    """Whether cgroup v2 is mounted, and whether the attach point is in it."""
    from odm_agent.kernel.cgroups import find_root

    try:
        root = find_root()
    except KernelError as error:
        yield missing("cgroup v2", str(error), "mount -t cgroup2 none /sys/fs/cgroup")
        return
    attach = Path(host.agent.cgroup) if host.agent.cgroup else root
    if (attach / "cgroup.procs").is_file():
        yield ok("cgroup v2", f"mounted at {root}; attach point {attach}")
    else:
        remedy = f'make it, or set agent.cgroup to one that exists ("" for {root})'
        yield missing("cgroup v2", f"mounted at {root}, but {attach} is no cgroup", remedy)


def bpf_filesystem(host: Host) -> Iterator[Finding]:
    """Whether the folder for pins is on a BPF file system."""
    pin_dir = Path(host.agent.pin_dir)
    mounts = [Path(point) for point in mount_points("bpf")]
    for mount in mounts:
        if pin_dir.is_relative_to(mount):
            yield ok("bpffs", f"mounted at {mount}")
            return
    detail = f"{pin_dir} is on no BPF file system"
    filesystems = Path("/proc/filesystems").read_text().split()
    if "bpf" in filesystems:
        remedy = "the agent mounts one at /sys/fs/bpf; otherwise: mount -t bpf none /sys/fs/bpf"
        yield warning("bpffs", detail, remedy)
    else:
        yield missing("bpffs", detail, "run a kernel with CONFIG_BPF_SYSCALL")


def mount_points(kind: str, mounts: Path = Path("/proc/self/mounts")) -> list[str]:
    """Where file systems of this kind are mounted."""
    lines = [line.split(" ") for line in kernel_lines(mounts) if line]
    return [mount_point(fields[1]) for fields in lines if fields[2] == kind]


def type_information(host: Host) -> Iterator[Finding]:
    """BTF: without it Multipath TCP sockets cannot be given a type."""
    if Path("/sys/kernel/btf/vmlinux").is_file():
        yield ok("BTF", "/sys/kernel/btf/vmlinux")
    else:
        remedy = "run a kernel with CONFIG_DEBUG_INFO_BTF; all but MPTCP works without"
        yield warning("BTF", "the kernel has no type information", remedy)


def new_cgroups(host: Host) -> Iterator[Finding]:
    """Whether a service that is restarted has its class from its first moment on."""
    if tracepoints.compiler_flags():
        yield ok("new cgroups", "classified by the programs, as they are made")
    else:
        detail = "the kernel doesn't say where its structs hold what names a cgroup"
        remedy = (
            "run a kernel with CONFIG_DEBUG_INFO_BTF; without, a service that is restarted is of no"
            " class for some 0.1 s, or until there is an agent"
        )
        yield warning("new cgroups", detail, remedy)


def jit(host: Host) -> Iterator[Finding]:
    """The BPF compiler of the kernel."""
    try:
        value = (SYSCTL / "core/bpf_jit_enable").read_text().strip()
    except OSError as error:
        yield warning("BPF JIT", f"cannot be read: {error.strerror}", "look on the host itself")
        return
    if value == "0":
        remedy = "sysctl -w net.core.bpf_jit_enable=1, and in /etc/sysctl.d to keep it"
        yield warning("BPF JIT", "off: each program is interpreted, and slow", remedy)
    else:
        yield ok("BPF JIT", "on")


def ipv6(host: Host) -> Iterator[Finding]:
    """IPv6, without which only IPv4 prefixes can be served."""
    try:
        disabled = (SYSCTL / "ipv6/conf/all/disable_ipv6").read_text().strip() != "0"
    except FileNotFoundError:
        yield warning("IPv6", "not in this kernel", "boot without ipv6.disable=1")
        return
    if disabled:
        remedy = "sysctl -w net.ipv6.conf.all.disable_ipv6=0; IPv4 prefixes work without"
        yield warning("IPv6", "disabled", remedy)
    else:
        yield ok("IPv6", "enabled")
