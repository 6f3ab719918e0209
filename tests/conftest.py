"""What holds for every test run: it leaves nothing behind, and tells how far the RFC is covered."""

import os
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from tests import residue
from tests.lab import run
from tests.whole_run import Worker, is_worker

pytest_plugins = ["tests.conformance", "tests.bypass_page"]

#: What tells cases of one test apart: all parameters, but for techniques those after the name.
_CASE: Final = re.compile(r"(?<!source_that_the_class_may_not_use)\[.*\]$|-[^-]+-[^-]+\]$")
_BPFFS: Final = Path("/sys/fs/bpf")
_LEFT: Final = pytest.StashKey[list[str]]()

# How fast a machine happens to be is no property of the code, and every run tries the same.
# `--hypothesis-profile=default` draws at random.
settings.register_profile(
    "odm",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("odm")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `make pages` says."""
    parser.addoption(
        "--write-pages",
        action="store_true",
        help="let a whole run write the pages that it makes, instead of comparing them",
    )
    parser.addoption(
        "--smoke",
        action="store_true",
        help="run one case of each test, and of each technique of the bypass table",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let the controller hear what it needs from its workers."""
    if is_worker(config):
        config.pluginmanager.register(Worker(config), "odm-worker")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of what `--smoke` leaves, the first case of each: IPv6 where there are several families."""
    if not config.getoption("--smoke"):
        return
    first: dict[str, pytest.Item] = {}
    for item in items:
        first.setdefault(_CASE.sub("", item.nodeid), item)
    kept = set(first.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Give all that is made the number of this run. Who isn't root leaves nothing behind.

    Of several processes (pytest-xdist), the one that started the others does this.
    """
    if is_worker(session.config):
        return
    os.environ[run.MARK] = str(os.getpid())
    if os.geteuid() == 0:
        _mount_bpffs(session)


def _mount_bpffs(session: pytest.Session) -> None:
    """Mount what the agent would else mount in the midst, with what the kernel puts in there."""
    if not _BPFFS.is_mount():
        subprocess.run(["mount", "-t", "bpf", "bpf", str(_BPFFS)], check=True)
        session.config.add_cleanup(_unmount_bpffs)


def _unmount_bpffs() -> None:
    subprocess.run(["umount", str(_BPFFS)], check=False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Look for what is left after the last fixture is torn down; it fails the run."""
    if is_worker(session.config) or os.geteuid() != 0:
        return
    left = residue.left_behind()
    session.config.stash[_LEFT] = left
    if cache := getattr(session.config, "cache", None):  # there is none with -p no:cacheprovider
        cache.set("odm/left", left)  # scripts/second-try asks
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left behind."""
    left = terminalreporter.config.stash.get(_LEFT, [])
    if left:
        terminalreporter.section("residue", red=True)
        for line in left:
            terminalreporter.line(line)
