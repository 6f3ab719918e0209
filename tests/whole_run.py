"""For pages that the tests make: the outcomes of a whole run, and nothing less.

`make pages` writes them; any other whole run compares them with what it would write, and fails if
they say something else.

Works in a single process and in the controller of pytest-xdist. There, the workers tell by id which
tests they collected, and at their end whether they were given a selection.
"""

from collections.abc import Callable, Iterable
from difflib import unified_diff
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[1]
_SELECTED: Final = "odm_selected"


def is_worker(config: pytest.Config) -> bool:
    """Whether another process collects the outcomes of this one."""
    return hasattr(config, "workerinput")


class WholeRun:
    """Collects the outcomes of all tests below a folder that `counts` says yes to, by node id.

    `text_of` is called at the end if every one of them ran: with the reports of each test's worst
    phase, by node id. What it returns is the text that `page` should have: it is written if
    `writes`, else compared, unless `of_other_kind` says of the page's text that it was made where
    other results are due. `root` is pytest's.
    """

    def __init__(
        self,
        folder: Path,
        counts: Callable[[str], bool],
        page: Path,
        text_of: Callable[[dict[str, pytest.TestReport]], str],
        *,
        writes: bool,
        of_other_kind: Callable[[str], bool] = lambda text: False,
        root: Path = ROOT,
    ) -> None:
        self._root = root
        self._folder = folder
        self._counts = counts
        self._page = page
        self._text_of = text_of
        self._writes = writes
        self._of_other_kind = of_other_kind
        self._said = ""
        self._expected: set[str] = set()
        self._reports: dict[str, pytest.TestReport] = {}
        self._selected = False

    def pytest_deselected(self) -> None:
        """A selection is not the whole suite."""
        self._selected = True

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember which tests are to run."""
        self._expect(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Remember which tests are to run: each worker collects them all."""
        self._expect(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Hear from a worker whether it had a selection; one that crashed says nothing."""
        self._selected |= getattr(node, "workeroutput", {}).get(_SELECTED, True)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst phase of each test."""
        if report.nodeid in self._expected and (report.when == "call" or not report.passed):
            self._reports[report.nodeid] = report

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the page, or compare it, if all of the tests ran."""
        if not self._whole(session.config):
            return
        text = self._text_of(self._reports)
        there = self._page.read_text() if self._page.exists() else ""
        if there == text:
            return
        if self._writes:
            self._page.parent.mkdir(exist_ok=True)
            self._page.write_text(text)
        elif self._of_other_kind(there):
            self._said = "not compared: it was made on a kernel of another kind"
        else:
            self._said = "not what this run found; see what changed, or run `make pages`:\n"
            self._said += "\n".join(unified_diff(there.splitlines(), text.splitlines(), n=0))
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say why the page was not as it should be."""
        if self._said:
            terminalreporter.section(str(self._page), red=True)
            terminalreporter.line(self._said)

    def _expect(self, ids: Iterable[str]) -> None:
        self._expected |= {
            each
            for each in ids
            if self._folder in (self._root / each.partition("::")[0]).parents and self._counts(each)
        }

    def _whole(self, config: pytest.Config) -> bool:
        asked = [Path(config.invocation_params.dir, each).resolve() for each in config.args]
        covered = any(path == self._folder or path in self._folder.parents for path in asked)
        ran = set(self._reports) == self._expected
        return covered and bool(self._expected) and not self._selected and ran


class Worker:
    """Tells the controller whether this worker was given a selection."""

    def __init__(self, config: pytest.Config) -> None:
        self._output: dict[str, Any] = config.workeroutput  # type: ignore[attr-defined]
        self._output[_SELECTED] = False

    def pytest_deselected(self) -> None:
        """A selection is not the whole suite."""
        self._output[_SELECTED] = True
