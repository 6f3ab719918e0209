"""The command line of modules that change the agent before it runs (`python -m MODULE run ...`)."""

import sys
from pathlib import Path

from odm_agent.cli import main
from odm_agent.daemon import serve


def run() -> None:
    """As `odm-agent`; but `run` stays in this process, in which something was changed."""
    if sys.argv[1] == "run":
        sys.exit(serve(Path(sys.argv[-1])))
    main()
