"""`python -m tests.lab.hasty` is `odm-agent` without a quarantine for numbers."""

from odm_agent.core import numbering
from tests.lab.entry import run

numbering.QUARANTINE_S = 0.0  # type: ignore[misc]
run()
