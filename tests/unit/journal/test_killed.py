"""Whoever kills the agent, what it was told is written is there, whole; what was begun is not."""

import os
import subprocess
import sys
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from odm_agent.journal import Journal
from odm_agent.prefixes.memory import Given

#: Addresses that are written together.
WIDTH: Final = 40

#: Says a number when all that belongs to it is written.
WRITER: Final = f"""
import sys
from ipaddress import ip_address
from pathlib import Path
from odm_agent.journal import Journal
from odm_agent.prefixes.memory import Given

journal = Journal(Path(sys.argv[1]))
for n in range(int(sys.argv[2]), 10_000):
    with journal.transaction():
        journal.give_number("class", f"name {{n}}", n)
        for each in range({WIDTH}):
            journal.remember_addresses({{}}, {{ip_address({WIDTH} * n + each): Given(n)}})
        journal.keep_leases({{n: f"lease {{n}}", n - 1: None}})
    print(n, flush=True)
"""


def test_a_writer_that_is_killed_leaves_what_it_said_and_nothing_by_halves(tmp_path: Path) -> None:
    path, said = tmp_path / "state" / "state.db", 0
    for rounds in (0, 1, 2, 3, 5, 8, 13, 21):
        said = _killed_after(rounds, path, said + 1)
        with closing(Journal(path)) as journal:
            numbers = journal.numbers("class")
            last = max(numbers.values())
            assert last in (said, said + 1), "the one that it was about to say may be there"
            assert numbers == {f"name {n}": n for n in range(1, last + 1)}
            assert journal.addresses() == {
                ip_address(WIDTH * n + each): Given(n)
                for n in range(1, last + 1)
                for each in range(WIDTH)
            }
            assert journal.leases() == {last: f"lease {last}"}
        said = last


def _killed_after(rounds: int, path: Path, first: int) -> int:
    """The last number that a writer said before it was killed, while it went on writing."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    ) as writer:
        assert writer.stdout is not None
        for _ in range(rounds + 1):
            writer.stdout.readline()
        writer.kill()
        rest = writer.stdout.read().split()
    assert writer.returncode < 0, "it was killed, it did not end"
    return max([first + rounds, *map(int, rest)])
