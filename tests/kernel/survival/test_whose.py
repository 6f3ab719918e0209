"""Whose things `detach` takes away: the named agent's, wherever it is called, and no other's."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from odm_agent.core.model import AddressType, Family
from tests.kernel.survival.conftest import QUICK, link_ids
from tests.kernel.survival.test_pins import bpffs
from tests.lab.agent import Agent
from tests.lab.cgroup import Cgroup
from tests.lab.client import Kind, call
from tests.lab.host import FIXED, Site, type_of
from tests.lab.netns import NetNs
from tests.lab.world import World, with_pool

#: So many addresses that the agent changes a sysctl.
MANY = with_pool(QUICK, "fixed6", 16)
SETTING = "net/ipv6/conf/w0/use_oif_addrs_only"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """A world in which a sysctl was changed, for one test alone."""
    with World(tmp_path, MANY) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One such world for all tests in which nothing of it may be touched."""
    with World(tmp_path_factory.mktemp("whose"), MANY) as made:
        yield made


@pytest.fixture
def many(shared: World) -> Iterator[World]:
    """That world, with an agent that runs, and whole in the end."""
    yield shared
    if shared.agent.ended:
        shared.agent.start()
    assert works(shared)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[NetNs]:
    """Another network namespace, with an interface of the same name and a setting of its own."""
    with NetNs("elsewhere") as netns:
        netns.ip("link", "add", "w0", "type", "veth", "peer", "name", "w1")
        netns.sysctl(SETTING, "1")
        netns.ip("route", "add", "blackhole", "198.18.0.0/15", "protocol", "86")
        netns.ip("rule", "add", "from", "198.18.0.1", "lookup", "7", "protocol", "86")
        yield netns


def setting(netns: NetNs) -> str:
    return netns.run(["cat", f"/proc/sys/{SETTING}"]).strip()


def tagged(netns: NetNs) -> list[str]:
    """What is marked as an agent's in a namespace: rules, routes, addresses."""
    words = ("-json", "-details")
    rules = json.loads(netns.ip(*words, "rule")) + json.loads(netns.ip(*words, "-6", "rule"))
    routes = [
        route
        for family in ("-4", "-6")
        for route in json.loads(netns.ip(*words, family, "route", "show", "table", "all"))
    ]
    return [str(each) for each in (*rules, *routes) if str(each.get("protocol")) == "86"]


def works(world: World) -> bool:
    return type_of(world.place("fixed").do(lambda: call(Kind.TCP6)).seen) is FIXED


def detach(world: World, netns: NetNs, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`odm-agent detach` as called in a namespace."""
    return subprocess.run(
        netns.command(world.agent.program("detach", *arguments)),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "killed"])
def test_detach_works_in_the_agents_namespace_wherever_it_is_called(
    own: World, elsewhere: NetNs, alive: bool
) -> None:
    theirs = tagged(elsewhere)
    assert len(theirs) == 2
    if not alive:
        own.agent.sigkill()
    assert setting(own.site.host) == "1"
    done = detach(own, elsewhere, "-c", str(own.agent.config))
    assert done.returncode == 0, done.stderr
    assert (setting(elsewhere), tagged(elsewhere)) == ("1", theirs), "another's are let be"
    assert (setting(own.site.host), tagged(own.site.host)) == ("0", [])
    assert not own.agent.pins.exists()
    assert own.place("fixed").do(lambda: call(Kind.TCP6)).seen == own.address(
        AddressType.UNSPECIFIED, Family.IPV6
    )


def test_detach_of_pins_whose_namespace_is_gone_touches_no_other(
    tmp_path: Path, elsewhere: NetNs
) -> None:
    theirs = tagged(elsewhere)
    with Cgroup("gone") as cgroup, Site() as site:
        agent = Agent(site.host, cgroup, tmp_path, MANY)
        cgroup.child("fixed")
        agent.start()
        agent.stop()
        site.close()
        done = subprocess.run(
            elsewhere.command(agent.program("detach", "-c", str(agent.config))),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "no process and no mount" in done.stdout
        assert not agent.pins.exists()
    assert (setting(elsewhere), tagged(elsewhere)) == ("1", theirs)


@pytest.mark.parametrize("other", ["pins", "pins-and-socket", "socket", "state"])
@pytest.mark.parametrize("alive", [True, False], ids=["alive", "killed"])
def test_detach_with_another_configuration_takes_nothing_of_this_agent(
    many: World, tmp_path: Path, other: str, alive: bool
) -> None:
    """In the same namespace, by the same protocol number."""
    changed = {
        "pins": {"pin_dir": f"{many.agent.pins}-other"},
        "pins-and-socket": {"pin_dir": f"{many.agent.pins}-other", "socket": "/run/odm-none"},
        "socket": {"socket": "/run/odm-none"},
        "state": {"pin_dir": f"{many.agent.pins}-other", "state_dir": str(tmp_path / "none")},
    }[other]
    if other == "socket" and not alive:
        pytest.skip("then it is this agent's own configuration")
    text = many.agent.config.read_text()
    for key, value in changed.items():
        (line,) = (x for x in text.splitlines() if x.startswith(f"{key} = "))
        text = text.replace(line, f"{key} = {json.dumps(value)}")
    config = tmp_path / "other.toml"
    config.write_text(text)
    if not alive:
        many.agent.sigkill()
    before = link_ids(many), sorted(tagged(many.site.host)), setting(many.site.host)
    done = detach(many, many.site.host, "-c", str(config))
    assert done.returncode == 1, done.stdout
    assert str(many.agent.pins) in done.stderr
    assert (link_ids(many), sorted(tagged(many.site.host)), setting(many.site.host)) == before
    assert works(many)
    if alive:
        assert many.agent.read("status")["alarms"] == []


def test_detach_with_a_configuration_that_is_no_toml_takes_no_other_pins_for_its(
    many: World, tmp_path: Path
) -> None:
    config = tmp_path / "broken.toml"
    config.write_text(many.agent.config.read_text() + "\n[classes\n")
    done = detach(many, many.site.host, "-c", str(config))
    assert done.returncode == 4
    assert "--pin-dir" in done.stderr
    assert works(many)


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "killed"])
@pytest.mark.parametrize("over", ["other-folder", "same-folder"])
def test_detach_in_another_mount_namespace_ends_no_program_that_is_pinned_in_ours(
    many: World, tmp_path: Path, alive: bool, over: str
) -> None:
    """There a bpf file system without our pins is mounted where they are."""
    text = many.agent.config.read_text()
    config = tmp_path / "other.toml"
    pins = many.agent.pins if over == "same-folder" else many.agent.pins.with_name("odm-nowhere")
    config.write_text(text.replace(str(many.agent.pins), str(pins)))
    if not alive:
        many.agent.sigkill()
    before = link_ids(many), sorted(tagged(many.site.host)), setting(many.site.host)
    script = 'mount -t bpf bpf /sys/fs/bpf && exec "$@"'
    line = many.agent.program("detach", "-c", str(config))
    done = subprocess.run(
        many.site.host.command(["unshare", "--mount", "sh", "-c", script, "sh", *line]),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout
    assert f"pinned in {many.agent.pins} in the mount namespace of process" in done.stderr
    assert (link_ids(many), sorted(tagged(many.site.host)), setting(many.site.host)) == before
    assert works(many)


def test_start_in_another_mount_namespace_takes_over_no_program_that_is_pinned_in_ours(
    many: World,
) -> None:
    many.agent.sigkill()
    before = link_ids(many)
    script = 'mount -t bpf bpf /sys/fs/bpf && exec "$@"'
    line = many.agent.program("run", "-c", str(many.agent.config))
    done = subprocess.run(
        many.site.host.command(["unshare", "--mount", "sh", "-c", script, "sh", *line]),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "in the mount namespace of process" in done.stderr
    assert link_ids(many) == before
    many.agent.start()
    assert link_ids(many) == before


def test_detach_leaves_programs_whose_pins_were_lost_to_the_agent_that_works_with_them(
    tmp_path: Path,
) -> None:
    with bpffs(tmp_path / "bpf") as mount, World(tmp_path, MANY, start=False) as world:
        world.agent.pins = mount / "odm"
        world.agent.configure(MANY)
        world.agent.start()
        config = tmp_path / "other.toml"
        text = world.agent.config.read_text().replace(str(world.agent.socket), "/run/odm-none")
        config.write_text(text)
        with bpffs(mount):
            before = sorted(tagged(world.site.host))
            done = detach(world, world.site.host, "-c", str(config))
            assert done.returncode == 1, done.stdout
            # A process with mounts of its own, made a moment ago, may still see the pins.
            told = f"process {world.agent.read('status')['pid']} works with them"
            assert told in done.stderr or f"detach --pin-dir {world.agent.pins}" in done.stderr
            assert sorted(tagged(world.site.host)) == before
            assert works(world)


def test_detach_leaves_lost_programs_of_another_protocol_number(tmp_path: Path) -> None:
    """What they are for is marked with it, stays, and would be anybody's without them."""
    theirs = replace(MANY, agent={"protocol": 87})
    with bpffs(tmp_path / "bpf") as mount, World(tmp_path, theirs, start=False) as world:
        world.agent.pins = mount / "odm"
        world.agent.configure(theirs)
        world.agent.start()
        ours = tmp_path / "ours.toml"
        text = world.agent.config.read_text().replace("protocol = 87", "protocol = 86")
        ours.write_text(text.replace(str(world.agent.pins), str(world.agent.pins) + "-ours"))
        with bpffs(mount):
            world.agent.sigkill()
            done = detach(world, world.site.host, "-c", str(ours))
            assert done.returncode == 0, done.stderr
            assert "left programs whose pins were lost" in done.stdout
            assert "`protocol = 87`" in done.stdout
            assert works(world)
            done = detach(world, world.site.host, "-c", str(world.agent.config))
            assert "programs whose pins were lost" in done.stdout, done.stderr
            assert not works(world)
        subprocess.run(["rm", "-r", str(world.agent.pins)], check=True)


@pytest.mark.parametrize("verb", ["run", "upgrade"])
def test_second_agent_on_the_same_pins_is_refused_whatever_its_socket(
    many: World, tmp_path: Path, verb: str
) -> None:
    config = tmp_path / "other.toml"
    text = many.agent.config.read_text().replace(str(many.agent.socket), f"{tmp_path}/socket")
    config.write_text(text)
    done = many.agent.call(verb, "-c", str(config))
    assert done.returncode == 1
    assert f"(pid {many.agent.read('status')['pid']})" in done.stderr


@pytest.mark.parametrize("verb", ["run", "upgrade"])
def test_start_in_another_namespace_changes_nothing(
    many: World, elsewhere: NetNs, verb: str
) -> None:
    many.agent.sigkill()
    before = link_ids(many), sorted(tagged(many.site.host)), setting(many.site.host)
    theirs = tagged(elsewhere)
    done = subprocess.run(
        elsewhere.command(many.agent.program(verb, "-c", str(many.agent.config))),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout
    assert "serve another network namespace" in done.stderr
    assert (link_ids(many), sorted(tagged(many.site.host)), setting(many.site.host)) == before
    assert (setting(elsewhere), tagged(elsewhere)) == ("1", theirs)
    many.agent.start()
    assert works(many)


def test_after_a_boot_the_journal_is_about_nothing_that_is(own: World, tmp_path: Path) -> None:
    """As after a boot: the namespace is another one, and what the agent changed is not changed."""
    own.agent.stop()
    own.agent.close()
    with Site() as site:
        second = Agent(site.host, own.cgroup, tmp_path, replace(MANY))
        (second.folder / "state").symlink_to(own.agent.folder / "state")
        second.start()
        assert setting(site.host) == "1"
        second.close()
        assert setting(site.host) == "0"
    assert os.path.exists(own.agent.folder / "state" / "state.db")
