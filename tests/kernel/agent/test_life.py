"""Start, reload, restart, detach: a broken configuration changes nothing, and nothing is left."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from odm_agent.core.model import AddressType, Family
from odm_agent.datapath import abi
from odm_agent.datapath.install import pins
from tests.kernel.agent.conftest import eventually
from tests.lab.client import Kind, call, outcome
from tests.lab.host import FIXED, PREFIXES, SESSION
from tests.lab.world import STANDARD, World

BROKEN = '[classes.broken]\nallow = ["sesion-lasting"]\n[prefixes.broken]\ntype = "fixed"\n'


def _ours(world: World) -> list[str]:
    """Everything in the host's namespace that carries our tag, or lies in a typed prefix."""
    host = world.site.host
    listed = [
        line
        for family in ("-4", "-6")
        for what in (("-details", "route", "show", "table", "all"), ("-details", "rule", "list"))
        for line in host.ip(family, *what).splitlines()
    ]
    links = json.loads(host.ip("-json", "address", "show"))
    addresses = [each["local"] for link in links for each in link.get("addr_info", [])]
    tagged = [line for line in listed if "proto 86" in line]
    return tagged + [each for each in addresses if any(each in prefix for prefix in PREFIXES)]


def _pretend(world: World, *, abi_tag: int = abi.ABI_TAG, storage_tag: int = 0) -> None:
    """Make the pins those of another source (hash of zeros), and perhaps of another ABI."""
    identity = str(world.agent.pins / "odm_identities")
    value = [str(byte) for byte in (abi_tag, *bytes(3), storage_tag, *bytes(3), *bytes(32))]
    key = ["0"] * 4
    world.site.host.run(
        ["bpftool", "map", "update", "pinned", identity, "key", *key, "value", *value]
    )


def test_agent_is_one_process_of_50_mib_at_most(own: World) -> None:
    """What reads command lines and compiles programs does not stay in it."""
    pid = own.agent.read("status")["pid"]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    told = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert int(told["VmRSS"].split()[0]) <= 50 * 1024, told
    loaded = Path(f"/proc/{pid}/maps").read_text()
    assert "pydantic" not in loaded and "libbcc" not in loaded and "libclang" not in loaded


def test_restart_adopts_what_is_pinned(own: World) -> None:
    before = pins.attached(own.agent.pins)
    addresses = own.agent.read("addresses")
    own.agent.stop()
    own.agent.start()
    assert pins.attached(own.agent.pins) == before
    assert own.agent.read("addresses") == addresses
    assert "programs taken over" in own.agent.log.read_text()


@pytest.mark.parametrize("tag", [abi.ABI_TAG, 99], ids=["same-abi", "other-abi"])
def test_restart_with_other_programs_replaces_them_in_place(own: World, tag: int) -> None:
    """The link stays, and with it enforcement; only what it runs is another."""
    before = pins.attached(own.agent.pins)
    own.agent.stop()
    _pretend(own, abi_tag=tag, storage_tag=abi.STORAGE_TAG)
    own.agent.start()
    after = pins.attached(own.agent.pins)
    assert after.keys() == before.keys()
    assert all(after[name].prog_id != before[name].prog_id for name in after)
    assert own.place("session").do(lambda: call(Kind.TCP6)).seen == own.address(
        SESSION, Family.IPV6
    )


def test_detach_removes_everything(own: World) -> None:
    assert _ours(own)
    pinned = own.agent.pins
    own.agent.close()
    assert not pinned.exists()
    assert _ours(own) == []
    assert own.place("session").do(lambda: call(Kind.TCP6)).seen == own.address(
        AddressType.UNSPECIFIED, Family.IPV6
    )


def test_detach_stops_a_running_agent(own: World) -> None:
    printed = own.site.host.run(own.agent.program("detach", "-c", str(own.agent.config)))
    assert "stopped the running agent" in printed
    assert _ours(own) == []


def test_detach_works_when_the_configuration_is_gone(own: World) -> None:
    own.agent.sigkill()
    own.agent.config.unlink()
    own.site.host.run(own.agent.program("detach", "--pin-dir", str(own.agent.pins)))
    assert not own.agent.pins.exists()
    assert _ours(own) == []


def test_second_agent_at_the_same_socket_is_refused(own: World) -> None:
    before = pins.attached(own.agent.pins)
    done = own.place("plain").run(own.agent.program("run", "-c", str(own.agent.config)))
    assert done.returncode == 1
    assert "another agent listens there" in done.stderr
    assert pins.attached(own.agent.pins) == before
    assert own.agent.read("status")["alarms"] == []


def test_broken_configuration_is_refused_at_start_with_file_and_line(tmp_path: Path) -> None:
    with World(tmp_path, start=False) as world:
        world.agent.config.write_text(BROKEN)
        done = world.place("plain").run(world.agent.program("run", "-c", str(world.agent.config)))
        assert done.returncode == 4
        assert f"{world.agent.config}:2:" in done.stderr
        assert f"{world.agent.config}:3:" in done.stderr
        assert "Traceback" not in done.stderr
        assert _ours(world) == []
        assert not world.agent.pins.exists()


def test_start_that_fails_late_attaches_nothing(tmp_path: Path) -> None:
    with World(tmp_path, start=False) as world:
        (world.agent.folder / "state").write_text("a file, where the folder should be")
        done = world.place("plain").run(world.agent.program("run", "-c", str(world.agent.config)))
        assert done.returncode == 1
        assert "agent.state_dir" in done.stderr
        assert _ours(world) == []
        assert not world.agent.pins.exists()


@pytest.mark.parametrize("how", ["command", "signal"])
def test_broken_configuration_is_refused_at_reload_and_the_last_good_one_stays(
    own: World, how: str
) -> None:
    address = own.address(SESSION, Family.IPV6)
    text = own.agent.config.read_text()
    own.agent.config.write_text(text + BROKEN)
    line = len(text.splitlines()) + 2
    if how == "command":
        done = own.agent.reload()
        assert done.returncode == 4
        assert f"{own.agent.config}:{line}:" in done.stderr
    else:
        own.agent.send(signal.SIGHUP)
    eventually(
        lambda: f"{own.agent.config}:{line}:" in (own.agent.read("status")["reload_error"] or ""),
        "the refusal in the status",
    )
    assert own.place("session").do(lambda: call(Kind.TCP6)).seen == address


def test_reload_takes_prefixes_and_classes_in_and_out(own: World) -> None:
    fewer = replace(
        STANDARD,
        prefixes=[p for p in PREFIXES if p.type is not FIXED],
        classes={
            **STANDARD.classes,
            "session": replace(STANDARD.classes["session"], allow=(), default=None),
        },
    )
    fixed = own.address(FIXED, Family.IPV6)
    own.agent.configure(fewer)
    assert own.agent.reload().returncode == 0
    assert fixed not in own.site.host.ip("address", "show", "dev", "lo")
    assert own.place("fixed").do(lambda: outcome(lambda: call(Kind.TCP6))) == "EADDRNOTAVAIL"
    seen = own.place("session").do(lambda: call(Kind.TCP6)).seen
    assert seen == own.address(AddressType.UNSPECIFIED, Family.IPV6)

    own.agent.configure(STANDARD)
    assert own.agent.reload().returncode == 0
    assert own.address(FIXED, Family.IPV6) == fixed, "stable, RFC 7217"
    assert own.place("fixed").do(lambda: call(Kind.TCP6)).seen == fixed


def test_reload_refuses_to_move_what_is_in_use(own: World) -> None:
    text = own.agent.config.read_text()
    own.agent.config.write_text(text.replace("[agent]", "[agent]\ntable_base = 4000", 1))
    done = own.agent.reload()
    assert done.returncode == 4
    assert "agent.table_base can't change" in done.stderr
