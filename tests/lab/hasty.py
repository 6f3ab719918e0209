"""`python -m tests.lab.hasty` is `odm-agent` without a quarantine for numbers."""

from odm_agent.cli import main
from odm_agent.core import numbering

numbering.QUARANTINE_S = 0.0  # type: ignore[misc]
main()
