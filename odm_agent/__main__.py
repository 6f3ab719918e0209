"""`python -m odm_agent` is `odm-agent`."""

from odm_agent.cli import main

main()
