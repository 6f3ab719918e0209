"""The running agent has the capabilities that it needs, and no other."""

import os
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Final

import pytest

from odm_agent.agent.privileges import KEPT
from odm_agent.core.actions import AddRule
from odm_agent.core.errors import OdmError
from odm_agent.core.host import Rule
from odm_agent.core.model import Family
from odm_agent.datapath import libbpf
from odm_agent.kernel.capabilities import Capability, keep_only
from odm_agent.kernel.cgroups import path_of
from odm_agent.kernel.conflict import in_use
from odm_agent.kernel.sock_diag import owners, sockets
from tests.kernel.agent.conftest import eventually
from tests.lab.cgroup import v2_root
from tests.lab.client import Kind, ask, call
from tests.lab.host import FIXED, GRACEFUL, prefix_of
from tests.lab.kernel import LabKernel
from tests.lab.process import forked
from tests.lab.world import STANDARD, World, with_pool

MASK: Final = sum(1 << each for each in KEPT)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as made:
        yield made


def _threads(pid: int) -> list[dict[str, str]]:
    """/proc/PID/task/TID/status of each thread."""
    return [
        dict(line.split(":\t", 1) for line in each.read_text().splitlines() if ":\t" in line)
        for each in Path(f"/proc/{pid}/task").glob("*/status")
    ]


def _sets(world: World, *names: str) -> set[int]:
    threads = _threads(world.agent.read("status")["pid"])
    return {int(each[f"Cap{name}"], 16) for each in threads for name in names}


def test_every_thread_has_just_what_is_needed(world: World) -> None:
    world.agent.metrics()  # each scrape has a thread, too
    threads = _threads(world.agent.read("status")["pid"])
    assert len(threads) >= 3, "the main thread, netlink's, and that of the metrics"
    assert _sets(world, "Eff", "Prm", "Bnd") == {MASK}
    assert _sets(world, "Inh", "Amb") == {0}
    assert {each["NoNewPrivs"] for each in threads} == {"1"}


def test_all_that_the_agent_does_still_works(own: World) -> None:
    graceful = prefix_of(GRACEFUL, Family.IPV4)
    # An address more on the link: probed (raw sockets), then configured, with its routes and rules.
    own.agent.configure(with_pool(STANDARD, graceful.name, 2))
    done = own.agent.reload()
    assert done.returncode == 0, done.stderr
    assert len(own.agent.addresses(graceful.name)) == 2
    own.site.host.ip("rule", "del", "priority", "8656")
    eventually(lambda: "8656" in own.site.host.ip("rule"), "a rule of ours is put back")
    assert own.place("every").do(lambda: call(Kind.TCP6, FIXED)).seen in prefix_of(
        FIXED, Family.IPV6
    )
    own.place("apps/later.service")  # a glob: a cgroup as it appears
    path = str(own.cgroup.path / "apps/later.service")
    eventually(lambda: path in _cgroups_of(own, "globbed"), "a cgroup is classified as it appears")
    command = own.agent.program("exec", "--socket", str(own.agent.socket), "--class", "fixed")
    done = own.place("plain").run([*command, "--", "true"])
    assert done.returncode == 0, done.stderr
    assert "odm_verdicts_total{" in own.agent.metrics()


def _cgroups_of(world: World, name: str) -> list[str]:
    (found,) = (each for each in world.agent.read("classes") if each["name"] == name)
    paths: list[str] = found["cgroups"]
    return paths


def test_interfaces_are_guarded_as_classes_come_to_need_it(own: World) -> None:
    """A program is attached to them, long after privileges were given up."""
    nothing = replace(STANDARD.classes["nothing"], refuse=("packet",))
    own.agent.configure(replace(STANDARD, classes={**STANDARD.classes, "nothing": nothing}))
    done = own.agent.reload()
    assert done.returncode == 0, done.stderr
    assert {int(each) for each in own.site.host.call(_indexes)} <= own.agent.guarded()
    assert not own.agent.read("status")["alarms"]
    own.agent.configure(STANDARD)
    assert own.agent.reload().returncode == 0
    assert not own.agent.guarded()


def _indexes() -> list[int]:
    return [index for index, name in socket.if_nameindex() if name in ("w0", "w1")]


def test_sockets_are_shown_with_type_and_process(world: World) -> None:
    def application(ready: Callable[[object], None]) -> None:
        with Kind.TCP6.open() as sock:
            ask(sock, FIXED)
            sock.connect(Kind.TCP6.destination)
            ready(os.getpid())
            sock.recv(1)
            threading.Event().wait(10)

    with world.place("every").background(application) as pid:
        shown = [each for each in world.agent.read("sockets") if each["pid"] == pid]
    assert [(each["type"], bool(each["process"])) for each in shown] == [("fixed", True)]


def test_port_below_1024_can_serve_metrics(tmp_path: Path) -> None:
    settings = replace(STANDARD, agent={"metrics": "127.0.0.1:653"})
    with World(tmp_path, settings) as made:

        def scrape() -> int:
            with urllib.request.urlopen("http://127.0.0.1:653/metrics", timeout=5) as answer:
                return int(answer.status)

        assert made.site.host.call(scrape) == 200
        assert _sets(made, "Eff", "Prm", "Bnd") == {MASK | 1 << Capability.NET_BIND_SERVICE}


def test_where_the_bounding_set_stays_the_agent_says_so_and_works(tmp_path: Path) -> None:
    with World(tmp_path, start=False) as made:
        made.agent.within = ["setpriv", "--bounding-set", "-setpcap"]
        made.agent.start()
        assert "more privileges than needed are kept" in made.agent.log.read_text()
        assert _sets(made, "Eff", "Prm") == {MASK}
        assert made.place("every").do(lambda: call(Kind.TCP6, FIXED)).seen


def test_nothing_is_dropped_while_other_threads_would_keep_it() -> None:
    def attempt() -> str:
        stop = threading.Event()
        other = threading.Thread(target=stop.wait)
        other.start()
        try:
            keep_only(KEPT)
        except OdmError as error:
            return str(error)
        finally:
            stop.set()
            other.join()
        return "done"

    assert "2 threads" in forked(attempt)


# --- why each is kept -----------------------------------------------------------------------------


def _rule() -> bool:
    rule = Rule(Family.IPV4, 100, 1000, source=ip_network("192.0.2.0/24"))
    with LabKernel(99) as kernel:
        kernel.apply(AddRule(rule))
        return rule in kernel.read().rules


def _probe() -> bool:
    import asyncio

    return not asyncio.run(in_use("w0", IPv4Address("192.0.2.60"), timeout_s=0.05, probes=1))


@pytest.mark.parametrize("lacking", [None, *sorted(KEPT)], ids=lambda each: each and each.name)
def test_each_capability_is_kept_because_something_fails_without(
    world: World, lacking: Capability | None
) -> None:
    host, root = world.site.host, v2_root()
    cgroup = world.cgroup
    storage = libbpf.get_pinned(world.agent.pins / "odm_sockets")
    listener = host.call(socket.create_server, ("127.0.0.1", 7999))
    inode = os.fstat(listener.fileno()).st_ino
    jobs: dict[Capability, Callable[[], object]] = {
        Capability.NET_ADMIN: _rule,
        Capability.BPF: lambda: sockets(storage),
        Capability.NET_RAW: _probe,
        Capability.DAC_READ_SEARCH: lambda: path_of(root, cgroup.id) == cgroup.path,
        Capability.SYS_PTRACE: lambda: inode in owners([inode]),
    }

    def attempt() -> set[Capability]:
        listener.close()  # from now on it is another process that holds it
        keep_only(KEPT - {lacking} if lacking is not None else KEPT)
        failed = set()
        for capability, job in jobs.items():
            try:
                if not job():
                    failed.add(capability)
            except (OSError, OdmError):
                failed.add(capability)
        return failed

    try:
        failed = host.fork(attempt)
    finally:
        os.close(storage)
        listener.close()
    if lacking is None:
        assert not failed
    else:
        assert lacking in failed
        # Without CAP_NET_ADMIN there is no storage to see either.
        assert failed <= {lacking, Capability.BPF if lacking is Capability.NET_ADMIN else lacking}
