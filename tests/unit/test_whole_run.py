"""Pages of a whole run are written, or compared, by a whole run, in one process or in several."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

_ROOT: Final = Path(__file__).parents[2]
_PLUGIN: Final = """\
import os
from pathlib import Path
from tests.whole_run import WholeRun, Worker, is_worker

HERE = Path(__file__).parent

def text_of(reports):
    return "".join(f"{each} {report.outcome}\\n" for each, report in sorted(reports.items()))

def pytest_configure(config):
    plugin = (
        Worker(config)
        if is_worker(config)
        else WholeRun(
            HERE / "suite",
            lambda each: "test_" in each,
            HERE / "page",
            text_of,
            writes="COMPARE" not in os.environ,
            of_other_kind=lambda text: "other" in text,
            root=HERE,
        )
    )
    config.pluginmanager.register(plugin, "page")
"""
_SUITE: Final = """\
import os
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_it(number: int) -> None:
    if os.environ.get("CRASH") == str(number):
        os._exit(3)

@pytest.fixture
def broken() -> None:
    assert not os.environ.get("BREAK")

def test_set_up(broken: None) -> None:
    pass
"""
_WHOLE: Final = [
    f"suite/test_{name}.py::{test} passed"
    for name in ("a", "b")
    for test in ("test_it[1]", "test_it[2]", "test_set_up")
]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A test suite with a page of its own."""
    (tmp_path / "conftest.py").write_text(_PLUGIN)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "suite").mkdir()
    for name in ("a", "b"):
        (tmp_path / "suite" / f"test_{name}.py").write_text(_SUITE)
    return tmp_path


def _page(suite: Path, *arguments: str, **variables: str) -> list[str] | None:
    """The lines of the page that such a run writes, if it does."""
    _run(suite, *arguments, **variables)
    page = suite / "page"
    return page.read_text().splitlines() if page.exists() else None


def _run(suite: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), **variables}
    return subprocess.run(
        command,
        cwd=suite,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_whole_run_writes_the_page(suite: Path, workers: str) -> None:
    assert _page(suite, "-n", workers, "--dist", "loadfile") == _WHOLE


@pytest.mark.parametrize("workers", ["0", "2"])
def test_failures_are_in_the_page(suite: Path, workers: str) -> None:
    lines = _page(suite, "-n", workers, "suite", BREAK="1")
    assert lines is not None and len(lines) == len(_WHOLE)
    assert [each for each in lines if not each.endswith("passed")] == [
        "suite/test_a.py::test_set_up failed",
        "suite/test_b.py::test_set_up failed",
    ]


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("arguments", [["-k", "set_up"], ["suite/test_a.py"]], ids=" ".join)
def test_selection_writes_nothing(suite: Path, workers: str, arguments: list[str]) -> None:
    assert _page(suite, "-n", workers, *arguments) is None


def test_run_that_was_broken_off_writes_nothing(suite: Path) -> None:
    assert _page(suite, "--maxfail=1", BREAK="1") is None


def test_crashed_worker_is_no_pass(suite: Path) -> None:
    lines = _page(suite, "-n", "2", CRASH="1")
    assert lines is None or any(each.endswith("failed") for each in lines)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_page_that_says_something_else_fails_a_run_that_only_compares(
    suite: Path, workers: str
) -> None:
    _page(suite)
    assert _run(suite, "-n", workers, COMPARE="1").returncode == 0
    old = (suite / "page").read_text().replace("test_it[2] passed", "test_it[2] failed")
    (suite / "page").write_text(old)
    done = _run(suite, "-n", workers, COMPARE="1")
    assert done.returncode == 1
    assert "run `make pages`" in done.stdout
    assert "-suite/test_a.py::test_it[2] failed" in done.stdout
    assert (suite / "page").read_text() == old
    assert _run(suite, "-n", workers, "suite/test_a.py", COMPARE="1").returncode == 0, "a part"


def test_page_of_a_kernel_of_another_kind_is_not_compared(suite: Path) -> None:
    (suite / "page").write_text("other\n")
    done = _run(suite, COMPARE="1")
    assert done.returncode == 0
    assert "not compared" in done.stdout
