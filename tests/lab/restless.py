"""`python -m tests.lab.restless` is `odm-agent` that looks at all sockets every few seconds, and
keeps what none of them uses for no longer: a test can't wait as long as people can.
"""

from odm_agent.core import looking, machine, releasing
from tests.lab.entry import run

for module in (looking, machine):
    module.RESYNC_S = 4.0  # type: ignore[attr-defined]
releasing.LEAST_S = 4.0  # type: ignore[misc]
run()
