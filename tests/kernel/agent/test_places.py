"""Where it is attached: the root that it finds by itself, and two agents side by side."""

from pathlib import Path

from odm_agent.datapath import pins
from tests.lab.agent import Agent
from tests.lab.cgroup import Cgroup
from tests.lab.client import Kind, call
from tests.lab.host import SESSION, Site
from tests.lab.place import Place
from tests.lab.world import STANDARD, World


def test_two_agents_in_two_namespaces_share_a_host(tmp_path: Path) -> None:
    """Both attach to the same cgroup; each serves the sockets of its own namespace only."""
    with (
        Site() as one,
        Site() as two,
        Cgroup("both") as cgroup,
        Agent(one.host, cgroup, tmp_path, STANDARD) as first,
        Agent(two.host, cgroup, tmp_path, STANDARD) as second,
    ):
        session = cgroup.child("session")
        for site, agent in ((one, first), (two, second)):
            (typed,) = agent.addresses("session6")
            place = Place(session, site.host)
            assert place.do(lambda: call(Kind.TCP6)).seen == typed
            assert place.do(lambda: call(Kind.SENDTO6)).seen == typed
        assert first.addresses("session6") != second.addresses("session6"), "own secrets"


def test_root_is_found_by_itself_in_a_cgroup_namespace(tmp_path: Path) -> None:
    """The shipped default, where the root that is found is the test's own cgroup."""
    with World(tmp_path, start=False) as world:
        text = world.agent.config.read_text()
        world.agent.config.write_text(text.replace(f'cgroup = "{world.cgroup.path}"', ""))
        mount = tmp_path / "cgroup"
        mount.mkdir()
        script = f'mount -t cgroup2 none {mount} && exec "$@"'
        world.agent.within = (
            *("sh", "-c", f'echo 0 > {world.cgroup.path}/cgroup.procs && exec "$@"', "sh"),
            *("unshare", "--cgroup", "--mount", "sh", "-c", script, "sh"),
        )
        world.agent.start()
        attached = pins.attached(world.agent.pins)
        assert {link.cgroup_id for link in attached.values()} == {world.cgroup.id}
        typed = world.agent.addresses("session6")
        assert [world.place("session").do(lambda: call(Kind.TCP6)).seen] == typed
        assert world.place("every").do(lambda: call(Kind.TCP6, SESSION)).seen in typed
