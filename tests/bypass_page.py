"""A pytest plugin that makes docs/bypass.md out of a whole run of tests/rfc8653/bypass.

Every word about what happened is a measurement: the hooks are those whose counters rose, the
errno is what the application saw, the wire is what the gateways captured.
"""

from collections import defaultdict
from typing import Final, NamedTuple

import pytest

from odm_agent.datapath.guards import creation
from tests.rfc8653.bypass.table import GROUPS
from tests.rfc8653.bypass.technique import Form, Result, Technique
from tests.whole_run import ROOT, WholeRun, is_worker

FOLDER: Final = ROOT / "tests" / "rfc8653" / "bypass"
PAGE: Final = ROOT / "docs" / "bypass.md"
_HEAD: Final = """\
# Ways around, and what stops them

Written by `make pages`; don't edit.

**The promise.** Once the programs are attached, no packet leaves this host from a source that its
class may not use. That is: from a socket made since, unless its process may write `cgroup.procs` of
another class, holds `CAP_NET_ADMIN` or `CAP_BPF`, holds `CAP_NET_RAW` in a class without the option
`refuse`, or was handed a connected socket by a process that may.

**The proof.** Each row is a technique that a test really tries, on a host with two uplinks, after
an address of type *fixed*: from a cgroup of no class, from a class that may use no type, and from a
class with another default type. It runs as nobody, with no more than what "needs" says. Witnesses
are captures at both gateways and the correspondent's own record, not the API. Then a class that may
use the address runs the same, and must put it on the wire; where that can't be shown, a note says
why. So no row says "refused" of a trick that never works.

- *Family*: "mapped" is IPv4 through an IPv6 socket.
- *Needs*: a capability; "root": several, or files that only root may open.
- *Caught by*: the hook whose counter of refusals rose (`odm_verdicts_total`), always for the reason
  that the class may not use the type.
- *Application is told*: the errno; "ok" where its calls succeed (it went on without the address, or
  the packet was dropped in silence); "timeout" where TCP waits in vain; "no call" where a server is
  never asked.
- *On the wire*: what the gateways saw of it.
- With `refuse`: what a class with that option meets instead. Packet and XDP sockets are refused
  when they are created (sock-create, EACCES) where the kernel runs a program there; {creation}.

**What is no way around, and yet not what one may expect.**

- *Untyped where a type is the default*: ping and raw sockets (ping, traceroute, mtr) are not given
  a source, nor are the further subflows of an MPTCP connection, which the kernel's path manager
  makes from endpoints that root has configured. They leave from the host's ordinary address. A
  class that is `strict` may not use that, so there they don't leave; `refuse` closes such sockets
  from the start.
- *A mark set by the application*: `SO_MARK` takes `CAP_NET_ADMIN` or (from Linux 5.17 on)
  `CAP_NET_RAW`. Who sets one chooses a routing table, perhaps that of another prefix. What source
  it may send from is checked all the same. Nor does it prove that a source was given, by which a
  UDP socket goes on when its class ends, unless a 32-bit system call set it, which runs no hook.
- *A negative length* in `getsockopt` is EINVAL for every option of every socket as soon as any
  program, be it empty, is attached to that hook.
"""
_CREATION: Final = {
    True: "this page was measured on one that does",
    False: "this page was measured on one that does not",
}
_COLUMNS: Final = (
    "Technique",
    "Family",
    "Needs",
    "Caught by",
    "Application is told",
    "On the wire",
    "Result",
)
_OPEN_HEAD: Final = """
## What remains open

Each of these has a test as well, which fails when it is *not* open any more.
"""


class Row(NamedTuple):
    """What came of one attempt, in words."""

    hook: str
    told: str
    wire: str
    result: str


Measured = dict[tuple[str, str, str], Row]
_UNKNOWN: Final = Row("-", "-", "-", Result.UNKNOWN.name)


def page(measured: Measured) -> str:
    """The page's text, out of what was measured by technique, form and class."""
    notes: dict[str, int] = {}
    parts = [_HEAD.format(creation=_CREATION[creation.way() is not None])]
    for group, techniques in GROUPS.items():
        lines = [f"\n## {group}\n", _line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
        for technique in techniques:
            lines += _rows(technique, measured, notes)
        parts.append("\n".join(lines) + "\n")
    parts.append("\n" + "\n".join(f"[{number}] {words}.<br>" for words, number in notes.items()))
    parts.append("\n" + _OPEN_HEAD + _open(measured))
    return "".join(parts)


def _rows(technique: Technique, measured: Measured, notes: dict[str, int]) -> list[str]:
    """One row for each way that it ended, with the families that ended so."""
    by_ending: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for form in technique.forms:
        by_ending[_ending(technique, form, measured)].append(form.value)
    words = technique.words
    if technique.no_control:
        words += f" [{notes.setdefault(technique.no_control, len(notes) + 1)}]"
    return [
        _line([words, ", ".join(forms), technique.needs or "nothing", *ending])
        for ending, forms in by_ending.items()
    ]


def _ending(technique: Technique, form: Form, measured: Measured) -> tuple[str, ...]:
    row = _row(technique, form, "nothing", measured)
    plain = _row(technique, form, "plain", measured)
    by = technique.expected(form).by
    hook, told, wire = row.hook or by or "-", row.told, row.wire
    result = Result[row.result].value
    if plain != row:
        hook += f"; of no class: {plain.hook or '-'}"
        told += f"; of no class: {plain.told}"
        wire += f"; of no class: {plain.wire}"
        result += f"; of no class: {Result[plain.result].value}"
    if technique.closed_by:
        result += f"<br>{_closed(technique, form, measured)}"
    return hook, told, wire, result


def _row(technique: Technique, form: Form, name: str, measured: Measured) -> Row:
    """What was measured; a test that failed before it could measure has nothing to say."""
    return measured.get((technique.slug, form.value, name), _UNKNOWN)


def _closed(technique: Technique, form: Form, measured: Measured) -> str:
    option = f'With `refuse = ["{technique.closed_by}"]`'
    row = _row(technique, form, "closed", measured)
    if row.result == Result.ABSENT.name:
        return f"{option}: {Result.ABSENT.value}"
    return f"{option}: {row.hook}, {row.told}, {row.wire} on the wire"


def _open(measured: Measured) -> str:
    lines = []
    for group, techniques in GROUPS.items():
        for technique in techniques:
            forms = [
                form.value
                for form in technique.forms
                if _row(technique, form, "nothing", measured).result == Result.OPEN.name
            ]
            if forms:
                needs = f"; needs {technique.needs}" if technique.needs else ""
                lines.append(
                    f"- **{group}: {technique.words}** ({', '.join(forms)}{needs}). "
                    f"{technique.remedy}"
                )
    return "\n" + "\n".join(lines) + "\n"


def _line(cells: "list[str] | tuple[str, ...]") -> str:
    return "| " + " | ".join(cells) + " |"


def _page_of(reports: dict[str, pytest.TestReport]) -> str:
    measured: Measured = {}
    failed = []
    for nodeid, report in sorted(reports.items()):
        for name, value in report.user_properties:
            if name == "bypass" and isinstance(value, list):
                measured[value[0], value[1], value[2]] = Row(*value[3:])
        if not report.passed:
            failed.append(nodeid.rpartition("::")[2])
    text = page(measured)
    if failed:
        text += "\n**The last whole run failed**: " + ", ".join(failed) + "\n"
    return text


def pytest_configure(config: pytest.Config) -> None:
    """Collect in every run (of this project's own tests)."""
    if not is_worker(config):
        collector = WholeRun(
            FOLDER,
            lambda _: True,
            PAGE,
            _page_of,
            writes=config.getoption("--write-pages"),
            of_other_kind=lambda text: f"{_CREATION[creation.way() is None]}." in text,
        )
        config.pluginmanager.register(collector, "odm-bypass")
