"""Other programs take the place of those in force, while sockets are made all the time."""

import os
import time
from pathlib import Path

import pytest

from odm_agent.datapath import abi, catalogue, libbpf
from odm_agent.datapath.install import pins, swap
from odm_agent.datapath.install.deployment import Deployment
from odm_agent.kernel.namespace import netns_cookie
from tests.kernel.survival.conftest import (
    Counters,
    link_ids,
    outdate,
    program_ids,
    unharmed,
)
from tests.lab.client import Kind, ask, exchange
from tests.lab.host import FIXED, type_of
from tests.lab.load import BY_CLASS
from tests.lab.place import Ready
from tests.lab.version import another_version
from tests.lab.world import World

#: Maps of another ABI: rows that point into one another, what the classes are, what is chosen.
RENAMED = {
    "odm_offers": "odm_offers_2",
    "odm_cgroups": "odm_cgroups_2",
    "odm_choices": "odm_choices_2",
    "odm_origins": "odm_origins_2",
    "odm_spans": "odm_spans_2",
    "odm_classes": "odm_classes_2",
}
_SWAPPING_S = 6.0


def _wanted(world: World) -> Deployment:
    cookie = world.site.host.call(netns_cookie)
    return Deployment(world.agent.pins, world.cgroup.path, cookie, 0xFF000000, 86)


def _listed(printed: str, what: str) -> set[str]:
    (line,) = [each for each in printed.splitlines() if each.startswith(f"{what}: ")]
    return set(line.partition(": ")[2].split(", "))


def test_hundreds_of_swaps_leave_no_socket_without_its_verdict(own: World) -> None:
    """Each link goes to and fro between two programs as fast as it can."""
    outdate(own)  # or there were nothing to stage
    swaps = 0
    with unharmed(own), swap.staged(_wanted(own)) as staged:
        generations: list[dict[str, int]] = [
            {name: libbpf.prog_by_id(number) for name, number in program_ids(own).items()},
            {n: libbpf.get_pinned(staged.folder / "programs" / n) for n in catalogue.CGROUP},
        ]
        links = {
            name: libbpf.get_pinned(pins.links_folder(own.agent.pins) / name)
            for name in catalogue.CGROUP
        }
        assert not staged.fresh
        give_up = time.monotonic() + _SWAPPING_S
        while time.monotonic() < give_up:
            for name, link in links.items():
                libbpf.link_update(link, generations[swaps % 2][name])
                time.sleep(0.0005)  # for half of the time both generations are in force
            swaps += 1
        for fd in (*links.values(), *(fd for each in generations for fd in each.values())):
            os.close(fd)
    assert swaps > 100


def test_upgrade_beneath_a_running_agent_of_the_same_abi(own: World) -> None:
    links, programs, pid = link_ids(own), program_ids(own), own.agent.read("status")["pid"]
    with unharmed(own):
        assert "nothing to do" in own.agent.call("upgrade", "-c", str(own.agent.config)).stdout
        for _ in range(3):
            outdate(own)
            done = own.agent.call("upgrade", "-c", str(own.agent.config))
            assert done.returncode == 0, done.stderr
            assert f"replaced {len(programs)} programs" in done.stdout
            assert "start it again" not in done.stdout
    assert link_ids(own) == links
    assert not set(program_ids(own).values()) & set(programs.values())
    assert own.agent.read("status")["pid"] == pid
    assert own.agent.read("status")["alarms"] == []


def test_upgrade_to_another_abi_and_back(own: World, tmp_path: Path) -> None:
    """The maps that it doesn't share are filled before any program reads them."""
    links, counters = link_ids(own), Counters(own)
    other = another_version(tmp_path / "other", abi_tag=77, renamed=RENAMED)
    with unharmed(own):
        own.agent.version = other
        done = own.agent.call("upgrade", "-c", str(own.agent.config))
        assert done.returncode == 0, done.stderr
        assert "start it again" in done.stdout
        # Of maps that belong together none is shared if one can't be, though both know the others.
        assert _listed(done.stdout, "new maps") == {
            *RENAMED.values(),
            *("odm_slots", "odm_caps", "odm_limits", "odm_untyped_blocks"),
        }
        assert _listed(done.stdout, "removed maps") == set(RENAMED)
        assert (own.agent.pins / "odm_spans_2").exists()
        assert not (own.agent.pins / "odm_spans").exists()
        time.sleep(0.5)
        own.agent.start()
        assert own.agent.log.read_text().count("programs taken over") == 1
        assert own.agent.read("status")["abi"] == 77
        time.sleep(0.5)
        own.agent.sigkill()

        own.agent.version = None  # an older version does the same, at its start
        own.agent.start()
        time.sleep(0.5)
    assert own.agent.log.read_text().count("programs loaded") == 2
    assert (own.agent.pins / "odm_spans").exists()
    assert link_ids(own) == links
    counters.check()


def test_upgrade_without_an_agent(own: World, tmp_path: Path) -> None:
    links = link_ids(own)
    with unharmed(own):
        own.agent.stop()
        own.agent.version = another_version(tmp_path / "other", abi_tag=77, renamed=RENAMED)
        done = own.agent.call("upgrade", "-c", str(own.agent.config))
        assert "no agent runs" in done.stdout, done.stderr
        time.sleep(0.5)
        own.agent.version = None
        assert own.agent.call("upgrade", "-c", str(own.agent.config)).returncode == 0
    assert link_ids(own) == links


def test_upgrade_broken_off_half_way_is_done_again(own: World, tmp_path: Path) -> None:
    """Links of both versions; neither takes that for its own."""
    other = another_version(tmp_path / "other", abi_tag=77, renamed=RENAMED)
    links = link_ids(own)
    with unharmed(own):
        own.agent.stop()
        own.agent.version = other
        # What a kill after the first links leaves.
        script = (
            "import os; from odm_agent.datapath.install import swap\n"
            "real = swap._attach_one; done = []\n"
            "def some(*args):\n    if len(done) == 5: os._exit(9)\n    done.append(real(*args))\n"
            "swap._attach_one = some\n"
            "from odm_agent.cli import main; main()\n"
        )
        (other / "broken.py").write_text(script)
        config = str(own.agent.config)
        own.agent.entry = ["broken"]
        assert own.agent.call("upgrade", "-c", config).returncode == 9
        own.agent.entry = ["odm_agent"]
        mixture = program_ids(own)
        time.sleep(0.3)
        own.agent.version = None
        assert own.agent.call("upgrade", "-c", config).returncode == 0
        assert not set(mixture.values()) & set(program_ids(own).values())
    assert link_ids(own) == links


def test_other_storage_is_refused_and_everything_stays(own: World, tmp_path: Path) -> None:
    before = program_ids(own), sorted(own.agent.pins.rglob("*"))
    other = another_version(tmp_path / "other", storage_tag=99)
    with unharmed(own):
        own.agent.version = other
        done = own.agent.call("upgrade", "-c", str(own.agent.config))
        assert done.returncode == 1
        assert "the types of live sockets would be forgotten" in done.stderr
        assert own.agent.read("status")["alarms"] == []
        own.agent.stop()
        with pytest.raises(AssertionError, match="--forget-sockets"):
            own.agent.start()
    assert (program_ids(own), sorted(own.agent.pins.rglob("*"))) == before


def test_other_storage_is_taken_when_sockets_may_forget(own: World, tmp_path: Path) -> None:
    """Classes go on as ever; only what a socket asked for is lost."""
    own.agent.version = another_version(tmp_path / "other", storage_tag=99)
    asked = own.agent.folder / "asked"

    def application(ready: Ready) -> None:
        with Kind.TCP6.open() as sock:
            ask(sock, FIXED)
            ready(None)
            while not asked.exists():
                time.sleep(0.02)
            seen = exchange(sock, Kind.TCP6).seen
            asked.write_text(seen)
            time.sleep(60)

    with own.place("every").background(application):
        with unharmed(own, BY_CLASS):
            done = own.agent.call("upgrade", "-c", str(own.agent.config), "--forget-sockets")
            assert done.returncode == 0, done.stderr
            assert _listed(done.stdout, "new maps") == {"odm_sockets", "odm_usage", "odm_live"}
            assert "start it again" in done.stdout
            own.agent.start()
        asked.touch()
        give_up = time.monotonic() + 5
        while not asked.read_text() and time.monotonic() < give_up:
            time.sleep(0.02)
    assert asked.read_text() and not type_of(asked.read_text())


def test_programs_that_do_not_compile_change_nothing(own: World, tmp_path: Path) -> None:
    before = program_ids(own), sorted(own.agent.pins.rglob("*"))
    own.agent.version = another_version(tmp_path / "other", abi_tag=77, renamed=RENAMED)
    with (own.agent.version / "bpf" / "odm.c").open("a") as source:
        source.write("int odm_broken(void) { return nothing_like_it; }\n")
    done = own.agent.call("upgrade", "-c", str(own.agent.config))
    assert done.returncode == 1
    assert "compiling the eBPF programs" in done.stderr
    assert (program_ids(own), sorted(own.agent.pins.rglob("*"))) == before
    assert own.agent.read("status")["abi"] == abi.ABI_TAG


def test_map_of_another_shape_is_refused_by_name(own: World, tmp_path: Path) -> None:
    """BCC would take it silently."""
    own.agent.stop()
    before = program_ids(own)
    wrong = own.agent.pins / "odm_classes"
    wrong.unlink()
    own.site.host.run(
        [
            *("bpftool", "map", "create", str(wrong), "type", "array", "key", "4"),
            *("value", "64", "entries", "8", "name", "odm_classes"),
        ]
    )
    outdate(own)
    with pytest.raises(AssertionError, match="odm_classes has value_size 64 instead of 32"):
        own.agent.start()
    assert program_ids(own) == before
