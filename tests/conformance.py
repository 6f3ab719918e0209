"""A pytest plugin that makes docs/conformance.md out of a whole run of the tests.

A test belongs to the IDs that its name begins with, e.g. `test_D8_A1_...`; most are in
tests/rfc8653, what needs a stage of its own is elsewhere. The page holds no dates
and no timings: it changes when tests or results change.
"""

import re
from collections import defaultdict
from typing import Final

import pytest

from tests.requirements import LIMITS, REQUIREMENTS
from tests.whole_run import ROOT, WholeRun, is_worker

SUITE: Final = ROOT / "tests"
PAGE: Final = ROOT / "docs" / "conformance.md"
_IDS: Final = re.compile(r"^test_((?:[A-Z]\d_)+)")
_HEAD: Final = """\
# Conformance to RFC 8653

Written by `make pages`; don't edit. Each line is one thing that the RFC asks of a
host, with the tests that show it on real sockets and the result of the last whole run.
"Open" means that nothing shows it yet. xN is the number of variants (families, protocols, types).
Tests of what only some kernels have (refusal at the creation of sockets) count where they run.

| ID | RFC 8653 | Requirement | Tests | Result |
|---|---|---|---|---|
"""


def ids_of(test: str) -> list[str]:
    """The requirement IDs in a test function's name."""
    match = _IDS.match(test)
    return match.group(1).rstrip("_").split("_") if match else []


def _function(nodeid: str) -> str:
    return nodeid.partition("[")[0].rpartition("::")[2]


def page(results: dict[str, list[str]]) -> str:
    """The page's text, out of the outcomes of each variant by test (`FILE::FUNCTION`)."""
    by_id: dict[str, list[str]] = defaultdict(list)
    for test in sorted(results):
        for each in ids_of(test.partition("::")[2]):
            by_id[each].append(test)
    lines = []
    for each, (section, words) in REQUIREMENTS.items():
        tests = by_id.get(each, [])
        listed = "<br>".join(_link(test, len(results[test])) for test in tests)
        lines.append(
            f"| {each} | {section} | {words} | {listed} | {_verdict(each, tests, results)} |"
        )
    return _HEAD + "\n".join(lines) + "\n"


def _link(test: str, variants: int) -> str:
    file, _, function = test.partition("::")
    return f"[{function}](../{file})" + (f" x{variants}" if variants > 1 else "")


def _verdict(requirement: str, tests: list[str], results: dict[str, list[str]]) -> str:
    if not tests:
        return "open"
    outcomes = {outcome for test in tests for outcome in results[test]} - {"skipped"}
    if outcomes - {"passed"}:
        return "**FAIL**"
    if not outcomes:
        return "not run: the kernel lacks what the tests need"
    limit = LIMITS.get(requirement)
    return f"pass ({limit})" if limit else "pass"


def _page_of(reports: dict[str, pytest.TestReport]) -> str:
    results: dict[str, list[str]] = defaultdict(list)
    for nodeid, report in reports.items():
        results[nodeid.partition("[")[0]].append(report.outcome)
    return page(results)


def pytest_configure(config: pytest.Config) -> None:
    """Collect in every run (of this project's own tests)."""
    if not is_worker(config):
        collector = WholeRun(
            SUITE,
            lambda nodeid: bool(ids_of(_function(nodeid))),
            PAGE,
            _page_of,
            writes=config.getoption("--write-pages"),
        )
        config.pluginmanager.register(collector, "odm-conformance")
