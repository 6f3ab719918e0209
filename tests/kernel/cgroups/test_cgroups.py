"""Cgroups by name and number; the witnesses are other parts of the kernel."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from odm_agent.core.errors import KernelError
from odm_agent.kernel.cgroups import (
    Refused,
    cgroup_id,
    current_cgroup,
    expand,
    find_root,
    path_of,
)
from odm_agent.kernel.sock_diag import sockets
from tests.lab.cgroup import Cgroup

NOBODY = 65534


@pytest.fixture
def tree() -> Iterator[Cgroup]:
    """A root of our own: system/{ssh-a,ssh-b,web}, users/u1 (delegated) with ssh-x below."""
    with Cgroup("tree") as tree:
        system = tree.child("system")
        for name in ("ssh-a", "ssh-b", "web"):
            system.child(name)
        user = tree.child("users").child("u1")
        user.child("ssh-x")
        os.chown(user.path, NOBODY, NOBODY)
        os.chown(user.procs, NOBODY, NOBODY)
        yield tree


def test_the_root_is_a_mounted_cgroup2_hierarchy() -> None:
    assert (find_root() / "cgroup.procs").exists()
    assert "cgroup2" in Path("/proc/self/mounts").read_text().split(f" {find_root()} ")[1][:8]


def test_the_id_is_what_the_kernel_says_of_a_socket_made_there(tree: Cgroup) -> None:
    def listed() -> set[int]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            return {each.cgroup_id for each in sockets() if each.local_port == port}

    assert tree.call(listed) == {cgroup_id(tree.path)}


def test_ids_lead_back_to_paths(tree: Cgroup) -> None:
    web = tree.path / "system/web"
    number = cgroup_id(web)
    assert path_of(find_root(), number) == web
    assert path_of(tree.path, number) == web
    assert path_of(tree.path / "users", number) is None
    web.rmdir()
    assert path_of(tree.path, number) is None
    with pytest.raises(KernelError, match=r"looking up the cgroup .*web: No such file"):
        cgroup_id(web)
    with pytest.raises(KernelError, match="not a cgroup"):
        cgroup_id(tree.procs)


def test_the_cgroup_of_a_process(tree: Cgroup) -> None:
    assert tree.call(lambda: current_cgroup(os.getpid())) == tree.path
    with pytest.raises(KernelError, match="cgroup of process 4194305"):
        current_cgroup(4194305)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("system/web", {"system/web"}),
        ("/system/web/", {"system/web"}),
        ("system/*", {"system/ssh-a", "system/ssh-b", "system/web"}),
        ("system/ssh-[b-z]", {"system/ssh-b"}),
        ("*/ssh-?", {"system/ssh-a", "system/ssh-b"}),
        ("*/u1", {"users/u1"}),  # root made it, though others may make some below
        ("nowhere", set()),
        ("system/none/*", set()),
        ("../*", set()),
        ("system/cgroup.procs", set()),
    ],
)
def test_patterns_match_part_by_part(tree: Cgroup, pattern: str, names: set[str]) -> None:
    assert expand(tree.path, [pattern]).cgroups == {
        name: cgroup_id(tree.path / name) for name in names
    }


def test_globs_stop_at_what_others_may_write(tree: Cgroup) -> None:
    found = expand(tree.path, ["*/*/ssh-*"])
    assert found.cgroups == {}
    user = tree.path / "users/u1"
    reason = f"{user} belongs to uid {NOBODY}, not to root"
    assert found.refused == (Refused("users/u1/ssh-x", "*/*/ssh-*", reason),)

    assert expand(tree.path, ["users/u1/ssh-x"]).cgroups.keys() == {"users/u1/ssh-x"}
    delegated = expand(tree.path, ["*/*/ssh-*"], delegated=True)
    assert delegated.cgroups.keys() == {"users/u1/ssh-x"} and not delegated.refused

    os.chown(user, 0, 0)
    assert "cgroup.procs belongs to" in expand(tree.path, ["*/*/ssh-*"]).refused[0].reason
    os.chown(user / "cgroup.procs", 0, 0)
    assert expand(tree.path, ["*/*/ssh-*"]).cgroups.keys() == {"users/u1/ssh-x"}
    user.chmod(0o775)
    assert "by others than root" in expand(tree.path, ["*/*/ssh-*"]).refused[0].reason


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_without_a_descriptor_it_is_an_error_and_nothing_is_taken_for_gone(tree: Cgroup) -> None:
    number = tree.child("there").id
    with no_descriptor_left():
        with pytest.raises(KernelError, match="Too many open files"):
            expand(tree.path, ["*"])
        with pytest.raises(KernelError, match="Too many open files"):
            path_of(tree.path, number)
    assert path_of(tree.path, number) == tree.path / "there"


def test_below_a_root_that_is_gone_there_is_nothing(tree: Cgroup) -> None:
    child = tree.child("child")
    number = child.id
    child.path.rmdir()
    gone = tree.path / "child"
    assert path_of(gone, number) is None
    assert expand(gone, ["*", "a/b"]).cgroups == {}


def test_a_name_that_no_cgroup_can_have_names_none(tree: Cgroup) -> None:
    assert expand(tree.path, ["x" * 300]).cgroups == {}
