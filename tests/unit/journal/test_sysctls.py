"""Sysctls are remembered as they were first, each by who changed it."""

import sqlite3
from contextlib import closing
from pathlib import Path

from odm_agent.journal import Journal, Owner
from tests.unit.journal.doubles import open_journal


def test_a_sysctl_is_remembered_as_it_was_first(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.remember_sysctl("net/ipv6/conf/eth0/use_oif_addrs_only", "0")
        journal.remember_sysctl("net/ipv6/conf/eth0/use_oif_addrs_only", "1")
        assert journal.sysctls() == {"net/ipv6/conf/eth0/use_oif_addrs_only": "0"}
        journal.forget_sysctl("net/ipv6/conf/eth0/use_oif_addrs_only")
        assert journal.sysctls() == {}


def test_a_sysctl_belongs_to_one_namespace_in_one_boot(tmp_path: Path) -> None:
    """Neither another namespace nor another agent's pins, and after a boot nothing is changed."""
    path, name = tmp_path / "journal.sqlite", "net/ipv6/conf/eth0/use_oif_addrs_only"
    ours = Owner("b1", 1, "/p")
    with closing(Journal(path, ours)) as journal:
        journal.remember_sysctl(name, "0")
    for other in (ours._replace(netns=2), ours._replace(pin_dir="/q"), ours._replace(boot="b2")):
        with closing(Journal(path, other)) as journal:
            assert journal.sysctls() == {}
            journal.forget_sysctl(name)
    with closing(Journal(path, ours)) as journal:
        assert journal.sysctls() == {name: "0"}
    with closing(Journal(path, Owner("b2", 1, "/p"))) as journal:
        journal.remember_sysctl(name, "2")
        assert journal.sysctls() == {name: "2"}
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT boot FROM changed_sysctls").fetchall() == [("b2",)]
