"""Network namespaces and the settings in them."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from odm_agent.core.errors import KernelError
from odm_agent.datapath.install import visible
from odm_agent.kernel import namespace, sysctl
from tests.lab.netns import NetNs


@pytest.fixture
def netns() -> Iterator[NetNs]:
    with NetNs("place") as netns:
        netns.ip("link", "add", "d0.7", "type", "veth", "peer", "name", "d1")
        yield netns


def names() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def test_cookies_tell_namespaces_apart(netns: NetNs) -> None:
    here = namespace.netns_cookie()
    assert here == namespace.netns_cookie()
    assert netns.call(namespace.netns_cookie) not in (here, 0)


def test_a_mount_of_anybody_whose_name_is_no_utf8_hides_nothing(tmp_path: Path) -> None:
    """Who may make user namespaces may mount what he likes in his own, and name it so."""
    bad = os.fsencode(tmp_path) + b"/\xff\xe2\x80\xa8 x"
    os.mkdir(bad)
    script = 'mount -t tmpfs none "$0" && mount -t bpf none "$0" && echo && exec sleep 60'
    held = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, bad], stdout=subprocess.PIPE, text=True
    )
    try:
        assert held.stdout is not None and held.stdout.readline() == "\n"
        assert visible.links() == visible.links()
        with NetNs("found") as netns:
            cookie = netns.call(namespace.netns_cookie)
            assert namespace.find(cookie) is not None
    finally:
        held.kill()
        held.communicate()


def test_visit_goes_in_and_comes_back(netns: NetNs) -> None:
    here, before = namespace.netns_cookie(), names()
    with namespace.visit(netns.path):
        assert "d0.7" in names()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        assert namespace.netns_cookie() == here and names() == before
        assert sock.getsockopt(socket.SOL_SOCKET, 71, 8) != here.to_bytes(8, "little")


def test_visit_comes_back_after_an_error(netns: NetNs) -> None:
    here = namespace.netns_cookie()
    with pytest.raises(ZeroDivisionError), namespace.visit(netns.path):
        raise ZeroDivisionError
    assert namespace.netns_cookie() == here


def test_enter_moves_one_thread_only_and_takes_pids(netns: NetNs) -> None:
    here = namespace.netns_cookie()
    seen: list[int] = []

    def move() -> None:
        namespace.enter(netns.path)
        seen.append(namespace.netns_cookie())
        namespace.enter(os.getpid())
        seen.append(namespace.netns_cookie())

    thread = threading.Thread(target=move)
    thread.start()
    thread.join()
    assert seen[0] != here and seen[1] == here == namespace.netns_cookie()


def test_what_is_no_namespace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="opening the network namespace"):
        namespace.enter(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(KernelError, match="entering the network namespace"):
        namespace.enter(tmp_path / "file")


def test_a_setting_is_that_of_the_namespace_of_the_thread(netns: NetNs) -> None:
    name = "net/ipv6/conf/d0.7/use_oif_addrs_only"
    with namespace.visit(netns.path):
        assert sysctl.read(name) == "0"
        sysctl.write(name, "1")
        assert sysctl.read(name) == "1"
    assert netns.run(["cat", "/proc/sys/net/ipv6/conf/d0.7/use_oif_addrs_only"]) == "1\n"
    with pytest.raises(KernelError, match=r"use_oif_addrs_only: No such file"):
        sysctl.read(name)


@pytest.mark.parametrize(
    "name",
    ["kernel/core_pattern", "net", "net/../kernel/core_pattern", "/net/ipv4/ip_forward", "net//x"],
)
def test_only_network_settings_have_names(name: str) -> None:
    for attempt in (lambda: sysctl.read(name), lambda: sysctl.write(name, "1")):
        with pytest.raises(KernelError, match="not a network setting"):
            attempt()
