"""explain, asked of a kernel without our programs: destinations, targets, errors, words."""

import errno
import json
import os
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest
import typer

from odm_agent.cli.explain import find_target, parse_destination
from odm_agent.cli.probe import Outcome, Question, ask
from odm_agent.core.errors import KernelError
from odm_agent.core.model import AddressType
from odm_agent.kernel.cgroups import current_cgroup
from odm_agent.kernel.namespace import netns_cookie
from tests.lab.cgroup import Cgroup
from tests.lab.netns import NetNs
from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.unit.cli.conftest import STATUS, Cli, FakeAgent


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("192.0.2.1", ("192.0.2.1", 9)),
        ("192.0.2.1:443", ("192.0.2.1", 443)),
        ("2001:db8::1", ("2001:db8::1", 9)),
        ("[2001:db8::1]", ("2001:db8::1", 9)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
        ("fe80::1%lo", ("fe80::1%lo", 9)),
    ],
)
def test_destinations_are_addresses_with_or_without_a_port(
    text: str, parts: tuple[str, int]
) -> None:
    assert parse_destination(text) == parts


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("example.org", "getent ahosts example.org"),
        ("example.org:443", "getent ahosts example.org"),
        ("[2001:db8::1]443", "write an IPv6 address as"),
        ("[2001:db8::1", "write an IPv6 address as"),
        ("192.0.2.1:http", "is no port"),
        ("192.0.2.1:70000", "is no port"),
        ("", "is no address"),
    ],
)
def test_names_and_nonsense_are_refused_with_advice(text: str, advice: str) -> None:
    with pytest.raises(typer.BadParameter, match=advice):
        parse_destination(text)


def test_a_process_is_asked_for_in_its_own_cgroup_and_namespace() -> None:
    with Cgroup("explain") as cgroup, NetNs("far") as far:
        process = cgroup.spawn(["sleep", "60"], netns=far)
        try:
            wait_until(lambda: str(process.pid) in cgroup.procs.read_text(), "it is in its cgroup")
            assert find_target(str(process.pid), None) == (
                cgroup.path,
                Path(f"/proc/{process.pid}/ns/net"),
            )
        finally:
            process.kill()
            process.wait()


def test_a_cgroup_may_be_named_below_the_attach_point() -> None:
    with Cgroup("explain") as cgroup:
        cgroup.child("app")
        agent = msgspec.structs.replace(STATUS, cgroup=str(cgroup.path), pid=7)
        expected = (cgroup.path / "app", Path("/proc/7/ns/net"))
        assert find_target("app", agent) == expected
        assert find_target(str(cgroup.path / "app"), agent) == expected
        with pytest.raises(typer.BadParameter, match="is no cgroup v2"):
            find_target("none", agent)
    with pytest.raises(typer.BadParameter, match="there is no process 999999999"):
        find_target("999999999", None)


def test_the_kernel_is_asked_there_and_we_stay_here() -> None:
    cgroup_before, cookie_before = current_cgroup(os.getpid()), netns_cookie()
    with Cgroup("explain") as cgroup, NetNs("far") as far:
        far.ip("link", "set", "lo", "up")
        where = Path(f"/run/netns/{far.name}")
        outcome = ask(Question(cgroup.path, where, "127.0.0.1", 9, None))
        assert outcome == Outcome(far.call(netns_cookie), ip_address("127.0.0.1"))
        assert outcome.cookie != cookie_before
        lost = ask(Question(cgroup.path, where, "192.0.2.1", 9, None))
        assert (lost.step, lost.error) == ("connect", errno.ENETUNREACH)
    assert (current_cgroup(os.getpid()), netns_cookie()) == (cgroup_before, cookie_before)


def test_without_programs_a_type_is_not_known_or_dropped() -> None:
    with Cgroup("explain") as cgroup:
        fixed = AddressType.FIXED
        old = ask(Question(cgroup.path, None, "127.0.0.1", 9, fixed))
        assert (old.step, old.error) == ("option", errno.ENOPROTOOPT)
        new = ask(Question(cgroup.path, None, "::1", 9, fixed))
        assert (new.source, new.supported) == (ip_address("::1"), False)


def test_a_cgroup_that_takes_no_process_is_named(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=f"entering the cgroup {tmp_path / 'no'}"):
        ask(Question(tmp_path / "no", None, "127.0.0.1", 9, None))


@needs_root
def test_json_says_class_source_and_that_the_kernel_was_asked(agent: FakeAgent, cli: Cli) -> None:
    result = cli("explain", os.getpid(), "127.0.0.1:80", "--json", "--socket", agent.socket)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert agent.called("resolve") == [{"cgroup_id": Path(found["cgroup"]).stat().st_ino}]
    assert (found["class"], found["source"], found["type"]) == ("ssh", "127.0.0.1", "untyped")
    assert (found["errno"], found["prefix"]) == ("", None)
    assert "The kernel was asked" in found["notes"][0]
    # The fake agent claims another namespace.
    assert "ping, traceroute, mtr" in found["notes"][1]
    assert "not the agent's network namespace" in found["notes"][2]


@needs_root
def test_an_errno_is_shown_with_its_meaning(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[agent]\nsocket = "{tmp_path}/none"\npin_dir = "{tmp_path}/pins"\n')
    result = cli("explain", os.getpid(), "127.0.0.1", "--type", "fixed", "--config", config)
    assert result.exit_code == 0
    assert f"Nothing is pinned in {tmp_path}/pins" in " ".join(result.stdout.split())
    assert "ENOPROTOOPT, setsockopt: nothing here knows the option" in result.stdout
    assert "The agent does not run" in result.stdout
    assert "not known" in result.stdout
