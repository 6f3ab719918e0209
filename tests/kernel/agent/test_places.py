"""Where it is attached: the root that it finds by itself."""

from pathlib import Path

from odm_agent.datapath.install import pins
from tests.lab.client import Kind, call
from tests.lab.host import SESSION
from tests.lab.restarts import restarted
from tests.lab.world import World


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
        world.agent.sigkill()
        anew = world.cgroup.path / "session"
        anew.rmdir()
        manager = world.place("plain")
        assert manager.do(lambda: restarted(anew, lambda: call(Kind.TCP6).seen)) in typed
