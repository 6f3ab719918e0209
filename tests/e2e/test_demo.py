"""`make demo` as users run it: exit code, table, and nothing left when it is interrupted."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import TYPES
from tests.lab.process import wait_until

ROOT: Final = Path(__file__).parents[2]
COMMAND: Final = [sys.executable, "-m", "examples.demo"]


@pytest.mark.timeout(330)
def test_the_demo_shows_all_types_as_promised() -> None:
    done = subprocess.run(
        COMMAND, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"\bNO\b", done.stdout)
    for type in TYPES:
        for family in ("IPv4", "IPv6"):
            assert re.search(rf"│ {type.word} +│ {family} ", done.stdout), (type.word, family)
    assert len(re.findall(r"│ \(untyped\) +│ IPv[46] ", done.stdout)) == 4
    assert len(re.findall(r"│ refused +│ IPv[46] .*│ +yes +│", done.stdout)) == 2
    assert len(re.findall(r"│ its budget, .*│ +yes +│", done.stdout)) == 2
    assert len(re.findall(r"│ time +│ .*│ +yes +│", done.stdout)) == 2
    assert re.search(r"│ transfers +│ session-last.* 2001:db8:2000::.*│ +yes +│", done.stdout)
    assert re.search(r"│ monitoring +│ fixed +│ .*NoPrefixAvail.*│ +yes +│", done.stdout)
    told = {"nonpersistent": r"ECONNABORTED after \d+ ms"}
    for type in TYPES:
        became = told.get(type.word, r"goes on, silent \d+ ms, 0 bytes lost")
        assert re.search(rf"│ {type.word} +│ {became} +│ .*│ +yes +│", done.stdout), type.word


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name leaves room for that of a unix socket."""
    with tempfile.TemporaryDirectory(prefix="odm-test-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("after_s", [0.3, 2.5])
def test_an_interrupted_demo_removes_what_it_made(
    number: signal.Signals, after_s: float, tmp_path: Path, short: Path
) -> None:
    """To the whole process group, as the terminal does."""
    made, log = short, tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            COMMAND,
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(made)},
        )
    try:
        wait_until(lambda: bool(list(made.iterdir())), "the demo starts", 10)
        time.sleep(after_s)
        os.killpg(process.pid, number)
        code = process.wait(30)
    finally:
        process.kill()
        process.wait()
    # 0: the demo may have been quicker.
    assert code in (0, 130, 143), log.read_text()
    assert not list(made.iterdir())
    name = f"-{process.pid}-"
    assert not [each for each in os.listdir("/run/netns") if name in each]
    assert not [each for each in os.listdir("/sys/fs/bpf") if name in each]
