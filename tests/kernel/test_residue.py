"""The check that a run leaves nothing behind: proved by runs that do."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.lab.cgroup import v2_root
from tests.lab.netns import ip

_ROOT: Final = Path(__file__).parents[2]
_LEAK: Final = """\
import os, subprocess
from pathlib import Path
from tests.lab.cgroup import Cgroup
from tests.lab.netns import NetNs

def test_leaks() -> None:
    NetNs("leak")
    Cgroup("leak")
    Path(f"/sys/fs/bpf/odmlab-{os.getpid()}-leak").mkdir()
    process = subprocess.Popen(["sleep", "60"])
    process.returncode = 0  # forgotten on purpose
    assert OUTCOME

def test_is_innocent() -> None:
    pass
"""


def _pytest(file: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-q", "--tb=no", str(file)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def swept() -> Iterator[list[str]]:
    """Collects the output of leaking runs, and removes what they say that they left."""
    outputs: list[str] = []
    yield outputs
    for text in outputs:
        for name in re.findall(r"network namespace left behind: (\S+)", text):
            ip("netns", "delete", name)
        for path in re.findall(r"(?:cgroup|pin) left behind: (\S+)", text):
            Path(path).rmdir()
        for pid in re.findall(r"process left behind: sleep 60 \[(\d+)\]", text):
            os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize("outcome", [True, False], ids=["passing", "failing"])
def test_run_that_leaks_fails_and_names_what_it_left(
    tmp_path: Path, swept: list[str], outcome: bool
) -> None:
    file = tmp_path / "test_leak.py"
    file.write_text(_LEAK.replace("OUTCOME", str(outcome)))
    done = _pytest(file)
    swept.append(done.stdout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert ("1 failed, 1 passed" if not outcome else "2 passed") in done.stdout
    assert re.search(r"network namespace left behind: odmlab-\d+-\d+-leak", done.stdout)
    assert re.search(rf"cgroup left behind: {v2_root()}/odmlab-\d+-\d+-leak", done.stdout)
    assert re.search(r"pin left behind: /sys/fs/bpf/odmlab-\d+-leak", done.stdout)
    assert re.search(r"process left behind: sleep 60 \[\d+\]", done.stdout)


def test_run_that_cleans_up_after_a_failing_test_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "test_tidy.py"
    file.write_text(
        "from tests.lab.host import Site\n"
        "def test_fails_inside() -> None:\n"
        "    with Site() as site:\n"
        "        assert site is None\n"
    )
    done = _pytest(file)
    assert "1 failed" in done.stdout
    assert "left behind" not in done.stdout, done.stdout
