"""For pages that the tests write: the outcomes of a whole run, and nothing less."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]


class WholeRun:
    """Collects the outcomes of all tests below a folder that `counts` says yes to.

    `write` is called at the end if every one of them ran: with the reports of each test's worst
    phase, by node id. What it returns is the text of `page`.
    """

    def __init__(
        self,
        folder: Path,
        counts: Callable[[pytest.Item], bool],
        page: Path,
        write: Callable[[dict[str, pytest.TestReport]], str],
    ) -> None:
        self._folder = folder
        self._counts = counts
        self._page = page
        self._write = write
        self._expected: set[str] = set()
        self._reports: dict[str, pytest.TestReport] = {}
        self._deselected = False

    def pytest_deselected(self) -> None:
        """A selection is not the whole suite."""
        self._deselected = True

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember which tests are to run."""
        self._expected = {
            item.nodeid
            for item in session.items
            if self._folder in item.path.parents and self._counts(item)
        }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst phase of each test."""
        if report.nodeid in self._expected and (report.when == "call" or not report.passed):
            self._reports[report.nodeid] = report

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the page if all of the tests ran."""
        if not self._whole(session.config):
            return
        text = self._write(self._reports)
        if not self._page.exists() or self._page.read_text() != text:
            self._page.parent.mkdir(exist_ok=True)
            self._page.write_text(text)

    def _whole(self, config: pytest.Config) -> bool:
        asked = [Path(config.invocation_params.dir, each).resolve() for each in config.args]
        covered = any(path == self._folder or path in self._folder.parents for path in asked)
        ran = set(self._reports) == self._expected
        return covered and bool(self._expected) and not self._deselected and ran
