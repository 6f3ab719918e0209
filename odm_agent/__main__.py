"""`python -m odm_agent` is `odm-agent`."""

import os
import sys

# `-m` puts the current directory first: unless we lie there ourselves, it is somebody else's.
if not sys.flags.safe_path and sys.path[0] == os.getcwd():
    here = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if os.path.realpath(sys.path[0]) != here:
        del sys.path[0]

from odm_agent.cli import main

main()
