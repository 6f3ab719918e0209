"""check: what each finding is made from, and that one run shows all of them."""

import ctypes as ct
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from odm_agent.cli.doctor import (
    CHECKS,
    bpf,
    examine,
    managers,
    network,
    programs,
    sockets,
    software,
    system,
)
from odm_agent.cli.doctor.findings import Finding, Host, missing, ok
from odm_agent.config.schema import AgentConfig
from odm_agent.core.errors import KernelError
from odm_agent.datapath import catalogue, libbpf
from odm_agent.datapath.guards import creation
from tests.lab.cgroup import Cgroup
from tests.lab.netns import NetNs
from tests.lab.root import needs_root
from tests.unit.cli.conftest import Cli


def states(findings: Iterator[Finding]) -> list[str]:
    return [finding.state for finding in findings]


def test_every_finding_that_is_not_ok_has_a_remedy() -> None:
    found = examine(Host(root=Path("/")))
    assert len(found) >= len(CHECKS)
    assert [item for item in found if item.state != "ok" and not item.remedy] == []


def test_a_check_that_fails_loses_none_of_the_others() -> None:
    def broken(host: Host) -> Iterator[Finding]:
        raise KernelError("the kernel does not say")

    def fine(host: Host) -> Iterator[Finding]:
        yield ok("fine", "yes")

    found = examine(Host(), [broken, fine])
    assert [item.state for item in found] == ["missing", "ok"]
    assert "the kernel does not say" in found[0].detail


def test_exit_code_and_json(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [ok("one", "there")]
    monkeypatch.setattr("odm_agent.cli.check.check_host", lambda: found)
    assert cli("check").exit_code == 0
    found.append(missing("two", "not there", "get two"))
    found.append(missing("three", "not there", "get three"))
    result = cli("check", "--json")
    assert result.exit_code == 5
    assert json.loads(result.stdout)[1:] == [
        {"name": "two", "state": "missing", "detail": "not there", "remedy": "get two"},
        {"name": "three", "state": "missing", "detail": "not there", "remedy": "get three"},
    ]
    table = cli("check").stdout
    assert "get two" in table
    assert "get three" in table


# --- system ---------------------------------------------------------------------------------


def test_capabilities_are_read_from_the_effective_set() -> None:
    text = "CapPrm:\t000001ffffffffff\nCapEff:\t0000000000201000\n"
    held = system.effective_capabilities(text)
    assert [name for name, bit in system.CAPABILITIES.items() if held >> bit & 1] == [
        "CAP_NET_ADMIN",
        "CAP_SYS_ADMIN",
    ]


@needs_root
def test_privileges_that_lack_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "effective_capabilities", lambda text: 0)
    (finding,) = system.privileges(Host())
    assert finding.detail == "without CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF"


def test_pins_outside_of_a_bpf_file_system_are_noticed(tmp_path: Path) -> None:
    (finding,) = system.bpf_filesystem(Host(AgentConfig(pin_dir=str(tmp_path))))
    assert finding.state == "warning"
    assert "mount -t bpf" in finding.remedy


def test_an_attach_point_that_is_no_cgroup_is_missing(tmp_path: Path) -> None:
    (finding,) = system.cgroup_v2(Host(AgentConfig(cgroup=str(tmp_path))))
    assert finding.state == "missing"
    with Cgroup("doctor") as cgroup:
        assert states(system.cgroup_v2(Host(AgentConfig(cgroup=str(cgroup.path))))) == ["ok"]


# --- software -------------------------------------------------------------------------------


def test_another_python_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/opt/python")
    (finding,) = software.interpreter(Host())
    assert finding.state == "missing"
    assert "--system-site-packages" in finding.remedy


def test_a_missing_compiler_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (finding,) = software.compiler(Host())
    assert "apt install python3-bpfcc" in finding.remedy


def test_the_loaders_last_word_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess([], 1, "", "noise\nthe verifier says no\n")

    monkeypatch.setattr(subprocess, "run", refuse)
    (finding,) = software.load_test(Host())
    assert (finding.state, finding.detail) == ("missing", "the verifier says no")


def test_programs_without_mptcp_are_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"{catalogue.NO_MPTCP}: the verifier says no"

    def load(*_: object, **__: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess([], 0, f"something else\n{said}\n", "")

    monkeypatch.setattr(subprocess, "run", load)
    taken, left_out = software.load_test(Host())
    assert taken.state == "ok"
    assert (left_out.name, left_out.state, left_out.detail) == ("MPTCP", "warning", said)


# --- programs of others -----------------------------------------------------------------------


#: r0 = 1; exit: lets everything pass.
PASS: Final = bytes.fromhex("b700000001000000" + "9500000000000000")


@contextmanager
def stranger(cgroup: Path, program: catalogue.Program, flags: int, name: str) -> Iterator[int]:
    """A real program of the kind of one of ours at a cgroup; yields what the kernel answered."""
    libbpf = bpf.library()
    options = LoadOptions(ct.sizeof(LoadOptions), expected_attach_type=program.attach_type)
    size = len(PASS) // 8
    loaded = libbpf.bpf_prog_load(
        program.type, name.encode(), b"GPL", PASS, size, ct.byref(options)
    )
    assert loaded > 0, loaded
    fd = os.open(cgroup, os.O_RDONLY)
    try:
        result = libbpf.bpf_prog_attach(loaded, fd, program.attach_type, flags)
        yield result
        if result == 0:
            libbpf.bpf_prog_detach2(loaded, fd, program.attach_type)
    finally:
        os.close(fd)
        os.close(loaded)


class LoadOptions(ct.Structure):
    """struct bpf_prog_load_opts of libbpf, up to what a cgroup's programs need."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("attempts", ct.c_int),
        ("expected_attach_type", ct.c_uint32),
    )


EGRESS: Final = catalogue.CGROUP["odm_egress"]


@pytest.mark.parametrize(
    ("flags", "below", "state"),
    [
        (0, "", "missing"),
        (0, "below", "missing"),
        (bpf.ALLOW_OVERRIDE, "", "missing"),
        (bpf.ALLOW_OVERRIDE, "below", "warning"),
        (bpf.ALLOW_MULTI, "", "warning"),
        (bpf.ALLOW_MULTI, "below", "warning"),
    ],
)
def test_a_real_foreign_program_is_found_and_judged_as_the_kernel_does(
    flags: int, below: str, state: str
) -> None:
    with Cgroup("doctor") as cgroup:
        cgroup.child("below")
        with stranger(cgroup.path, EGRESS, flags, "stranger"):
            attach = cgroup.path / below
            (finding,) = programs.foreign_programs(Host(AgentConfig(cgroup=str(attach))))
            assert finding.state == state
            assert finding.detail.startswith("stranger (")
            assert f"egress of {cgroup.path}:" in finding.detail
            # The kernel is the judge: can one like ours be attached there?
            with stranger(attach, EGRESS, bpf.ALLOW_MULTI, "odm_try") as result:
                assert (result == 0) is (state == "warning")


@pytest.mark.parametrize("name", catalogue.CGROUP)
def test_an_exclusive_program_is_found_at_each_hook_that_we_attach_to(name: str) -> None:
    ours = catalogue.CGROUP[name]
    with Cgroup("doctor") as cgroup, stranger(cgroup.path, ours, 0, "stranger") as result:
        assert result == 0
        (finding,) = programs.foreign_programs(Host(AgentConfig(cgroup=str(cgroup.path))))
        assert finding.state == "missing"
        assert f"(exclusive) at {ours.hook} of" in finding.detail


def test_programs_below_only_stand_beside(tmp_path: Path) -> None:
    finding = programs.judge("below", tmp_path, "connect4", ["other"], 0)
    assert finding.state == "warning"


@needs_root
@pytest.mark.parametrize(
    ("way", "state"), [(None, "warning"), (creation.WAYS[0], "ok"), (creation.WAYS[1], "warning")]
)
def test_kernels_that_refuse_no_socket_at_its_creation_are_named(
    monkeypatch: pytest.MonkeyPatch, way: creation.Way | None, state: str
) -> None:
    monkeypatch.setattr(creation, "way", lambda: way)
    monkeypatch.setattr(creation, "hindrances", lambda: "" if way else "loading: not permitted")
    (finding,) = sockets.socket_creation(Host())
    assert finding.state == state
    assert ("(loading: not permitted)" in finding.detail) == (way is None), "and why"
    classes = [("classes.open", ["raw"]), ("classes.closed", ["raw", "packet"])]
    found = [each.name for each in sockets.closing(classes)]
    assert found == ([] if way else ["classes.closed"])


def test_where_a_program_can_refuse_sockets_is_tried_on_this_kernel() -> None:
    """By a program that is gone afterwards; other tests show that what is found does its work."""
    before = sum(1 for _ in libbpf.links(libbpf.LINK_TRACING))
    assert creation.way() in (None, *creation.WAYS)
    assert bool(creation.hindrances()) == (creation.way() is None), "no silence about why"
    assert sum(1 for _ in libbpf.links(libbpf.LINK_TRACING)) == before, "nothing stays"


def test_where_nobody_is_that_is_said() -> None:
    with Cgroup("doctor") as cgroup:
        found = list(programs.foreign_programs(Host(AgentConfig(cgroup=str(cgroup.path)))))
        assert [item for item in found if f" of {cgroup.path}" in item.detail] == []


# --- network --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (network.ForeignRule("IPv4", 32766, 0, 0, 254), []),
        (network.ForeignRule("IPv4", 0, 0, 0, 255), []),
        (network.ForeignRule("IPv4", 20000, 0x1, 0xFF, 7), []),
        (network.ForeignRule("IPv4", 20000, 0x80000000, 0x80000000, 7), ["0x80000000"]),
        (network.ForeignRule("IPv6", 100, 0, 0, 7), ["below 100"]),
        (network.ForeignRule("IPv6", 100, 1 << 24, 0xFFFFFFFF, 7), ["mark_mask", "below 100"]),
    ],
)
def test_foreign_rules_are_judged_by_mark_and_priority(
    rule: network.ForeignRule, words: list[str]
) -> None:
    said = [f"{item.detail} {item.remedy}" for item in network.judge(rule, AgentConfig())]
    assert len(said) == len(words)
    assert all(word in text for word, text in zip(words, said, strict=True))


@needs_root
def test_foreign_rules_are_read_from_the_kernel_and_ours_are_not_among_them() -> None:
    ours = AgentConfig().protocol
    with NetNs("doctor") as netns:
        netns.ip("rule", "add", "fwmark", "0x80000000/0x80000000", "table", "7", "prio", "20000")
        netns.ip("-6", "rule", "add", "from", "all", "table", "7", "prio", "100")
        netns.ip("rule", "add", "from", "all", "table", "7", "prio", "99", "protocol", str(ours))
        found = netns.call(lambda: [item.detail for item in network.foreign_rules(Host())])
    assert found == [
        "IPv4 rule 20000: fwmark 0x80000000/0x80000000 lookup 7 uses the mark bits 0x80000000",
        "IPv6 rule 100: lookup 7 stands before ours",
    ]


@needs_root
def test_policy_routing_is_tried_without_touching_this_namespace() -> None:
    with NetNs("doctor") as netns:
        before = netns.ip("rule", "list")
        assert netns.call(lambda: states(iter(list(network.policy_routing(Host()))))) == ["ok"]
        assert netns.ip("rule", "list") == before


# --- network managers -----------------------------------------------------------------------


def enable(root: Path, unit: str) -> None:
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / unit).touch()


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_managers_that_are_not_in_use_are_no_trouble(tmp_path: Path) -> None:
    host = Host(root=tmp_path)
    assert states(managers.networkd(host)) == ["ok"]
    assert states(managers.network_manager(host)) == ["ok"]


def test_networkd_removes_what_it_did_not_make_unless_told(tmp_path: Path) -> None:
    host = Host(root=tmp_path)
    enable(tmp_path, "systemd-networkd.service")
    (finding,) = managers.networkd(host)
    assert finding.state == "warning"
    assert "ManageForeignRoutingPolicyRules=no and ManageForeignRoutes=no" in finding.remedy

    rules = (
        "[DHCPv4]\nManageForeignRoutes=no\n[Network]\n# no\nManageForeignRoutingPolicyRules=no\n"
    )
    write(tmp_path, "etc/systemd/networkd.conf", rules)
    (finding,) = managers.networkd(host)
    assert "ManageForeignRoutes=no" in finding.remedy
    assert "PolicyRules" not in finding.remedy

    routes = "[Network]\nManageForeignRoutes = off\n"
    write(tmp_path, "usr/lib/systemd/networkd.conf.d/10-x.conf", routes)
    assert states(managers.networkd(host)) == ["ok"]

    # The same name in a folder of higher rank hides it; a later name wins over an earlier one.
    write(tmp_path, "etc/systemd/networkd.conf.d/10-x.conf", "")
    assert states(managers.networkd(host)) == ["warning"]
    write(tmp_path, "run/systemd/networkd.conf.d/20-y.conf", routes)
    assert states(managers.networkd(host)) == ["ok"]


def test_of_several_main_files_only_the_one_of_the_highest_rank_counts(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/systemd/networkd.conf", "[Network]\nManageForeignRoutes=no\n")
    write(tmp_path, "etc/systemd/networkd.conf", "[Network]\nSpeedMeter=no\n")
    assert managers.networkd_settings(tmp_path) == {"SpeedMeter": "no"}


def test_network_manager_is_warned_of(tmp_path: Path) -> None:
    write(tmp_path, "proc/17/comm", "NetworkManager\n")
    (finding,) = managers.network_manager(Host(root=tmp_path))
    assert finding.state == "warning"
