"""S6: what routers and DHCP servers give to the host makes alarms, never an invalid configuration.

A real radvd at gateway A announces typed prefixes as fit for autoconfiguration (RFC 4862).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import Family, Placement
from tests.lab.agent import LabClass, Settings
from tests.lab.cgroup import Cgroup
from tests.lab.client import Kind, call
from tests.lab.host import FIXED, LINKS, PREFIXES, LabPrefix
from tests.lab.process import wait_until
from tests.lab.world import PLAIN, World

DELEGATED: Final = next(p for p in PREFIXES if p.name == "fixed6")
ON_LINK: Final = replace(DELEGATED, placement=Placement.ON_LINK)
OWN: Final = f"{LINKS['A', Family.IPV6][2]}/64"


@contextmanager
def announced(world: World, folder: Path, prefix: LabPrefix) -> Iterator[str]:
    """radvd runs at A; the address that the host made from its announcement."""
    config = folder / "radvd.conf"
    config.write_text(
        "interface to-host { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;\n"
        "  AdvDefaultLifetime 0;\n"
        f"  prefix {prefix.network} {{ AdvOnLink on; AdvAutonomous on;"
        " AdvValidLifetime 600; AdvPreferredLifetime 300; }; };\n"
    )
    with Cgroup("radvd") as cgroup:
        command = ["radvd", "--nodaemon", "--logmethod", "stderr", "--debug", "1"]
        command += ["--config", str(config), "--pidfile", str(folder / "radvd.pid")]
        process = cgroup.spawn(command, netns=world.site.a)
        try:
            wait_until(lambda: bool(_autoconfigured(world)), "an address by SLAAC", timeout_s=20)
            yield _autoconfigured(world)[0]
        finally:
            process.terminate()
            process.wait()


def _autoconfigured(world: World) -> list[str]:
    listed = json.loads(world.site.host.ip("-json", "-6", "address", "show", "dev", "w0"))
    return [
        each["local"]
        for each in listed[0]["addr_info"]
        if each.get("dynamic") and ip_address(each["local"]) in DELEGATED.network
    ]


@pytest.fixture(params=[DELEGATED, ON_LINK], ids=["delegated", "on-link"])
def prefix(request: pytest.FixtureRequest) -> LabPrefix:
    chosen: LabPrefix = request.param
    return chosen


def settings(prefix: LabPrefix) -> Settings:
    return Settings((prefix,), {"fixed": LabClass(allow=(FIXED,), default=FIXED)})


def test_S6_an_announcement_of_a_typed_prefix_stops_nothing(
    prefix: LabPrefix, tmp_path: Path
) -> None:
    with World(tmp_path, settings(prefix), start=False) as world:
        # Default selection takes what the neighbour gave it: the other one is deprecated.
        world.site.host.ip("-6", "address", "change", OWN, "dev", "w0", "preferred_lft", "0")
        with announced(world, tmp_path, prefix) as given:
            plain = world.place(PLAIN)
            before = plain.do(lambda: call(Kind.TCP6)).seen
            assert before == given
            with world.agent:
                typed = world.agent.addresses(prefix.name)
                for kind in (Kind.TCP6, Kind.UDP6, Kind.SENDTO6):
                    assert plain.do(partial(call, kind)).seen == given
                assert plain.do(lambda: call(Kind.TCP6, bind=(given, 0))).seen == given
                assert world.place("fixed").do(lambda: call(Kind.TCP6)).seen in typed
                reloaded = world.agent.reload()
                assert reloaded.returncode == 0, reloaded.stderr
                assert "the network gave it to this host" in reloaded.stdout + reloaded.stderr
                told = world.agent.read("status")["alarms"]
                assert any(given in each and 'untyped = "allow"' in each for each in told)
                with pytest.raises(PermissionError):
                    plain.do(lambda: call(Kind.TCP6, bind=(typed[0], 0)))
            assert plain.do(lambda: call(Kind.TCP6)).seen == given
