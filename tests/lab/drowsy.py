"""`python -m tests.lab.drowsy` is `odm-agent` to which the host was suspended for an hour whenever
somebody sets the clock of the day, as the kernel does after a suspend: there is none in a test.
"""

from itertools import count

from odm_agent.agent import loop
from odm_agent.kernel.suspend import SuspendWatch
from tests.lab.entry import run

_hours = count()
loop.SuspendWatch = lambda: SuspendWatch(lambda: next(_hours) * 3600.0)  # type: ignore[misc, assignment, attr-defined]
run()
