"""The check that a run leaves nothing behind: proved by runs that do."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest

from tests.lab.cgroup import v2_root
from tests.lab.netns import ip

_ROOT: Final = Path(__file__).parents[2]
_LEAK: Final = """\
import subprocess
from pathlib import Path
from tests.lab import run
from tests.lab.cgroup import Cgroup
from tests.lab.netns import NetNs

def test_leaks() -> None:
    NetNs("leak")
    Cgroup("leak")
    (Path("/sys/fs/bpf") / run.name(run.PINS, 1, "leak")).mkdir()
    process = subprocess.Popen(["sleep", "60"])
    process.returncode = 0  # forgotten on purpose
    assert OUTCOME

def test_is_innocent() -> None:
    pass
"""

_BESIDE: Final = """\
import os
from pathlib import Path
from tests.lab.cgroup import v2_root
from tests.lab.netns import ip

def test_beside() -> None:
    others = f"odmlab-{os.getppid()}-{os.getpid()}-1"
    made = [v2_root() / others, v2_root() / "odm-somebody.service"]
    made += [Path("/sys/fs/bpf") / f"odm-test-{os.getppid()}-1-1", Path("/sys/fs/bpf/odm-somebody")]
    for each in made:
        each.mkdir()
    ip("netns", "add", others)
    made.append(Path("/run/netns") / others)
    Path(os.environ["ODM_BESIDE"]).write_text("\\n".join(map(str, made)))
"""


def _pytest(
    file: Path, more: Mapping[str, str] = MappingProxyType({})
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-q", "--tb=no", str(file)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **more},
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
    assert re.search(r"network namespace left behind: odmlab-\d+-\d+-\d+-leak", done.stdout)
    assert re.search(rf"cgroup left behind: {v2_root()}/odmlab-\d+-\d+-\d+-leak", done.stdout)
    assert re.search(r"pin left behind: /sys/fs/bpf/odm-test-\d+-\d+-1-leak", done.stdout)
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


def test_what_others_make_meanwhile_is_not_the_runs_fault(tmp_path: Path) -> None:
    """A daemon's or another run's: with names like ours, or none like any."""
    file = tmp_path / "test_beside.py"
    file.write_text(_BESIDE)
    there = tmp_path / "made"
    try:
        done = _pytest(file, {"ODM_BESIDE": str(there)})
        assert "1 passed" in done.stdout and done.returncode == 0, done.stdout + done.stderr
        made = [Path(each) for each in there.read_text().splitlines()]
        assert len(made) == 5 and all(each.exists() for each in made)
    finally:
        for each in map(Path, there.read_text().splitlines() if there.exists() else ()):
            ip("netns", "delete", each.name) if "netns" in each.parts else each.rmdir()


def test_what_was_there_before_may_go(tmp_path: Path) -> None:
    file = tmp_path / "test_beside.py"
    before = v2_root() / f"odmlab-{os.getpid()}-before"
    file.write_text(f"import os\ndef test_others_end() -> None:\n    os.rmdir({str(before)!r})\n")
    before.mkdir()
    done = _pytest(file)
    assert "1 passed" in done.stdout and done.returncode == 0, done.stdout + done.stderr
    assert not before.exists()
