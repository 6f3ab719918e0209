"""The agent's own process, which `odm-agent run` becomes: `python -m odm_agent.daemon FILE`.

It runs for months on small hosts, so it holds no module that it never calls. What reads command
lines takes 12 MB, and is left behind by becoming this.
"""

import sys
from importlib.util import find_spec, module_from_spec
from pathlib import Path

from odm_agent.core.errors import OdmError
from odm_agent.exits import exit_code


def serve(config: Path) -> int:
    """Run the agent; its exit code. Errors are told as those of all commands are."""
    _spare_pyroute2()
    from odm_agent.agent.loop import run_agent

    try:
        return run_agent(config)
    except OdmError as error:
        print(f"odm-agent: {error}", file=sys.stderr)
        return exit_code(error)


def _spare_pyroute2() -> None:
    """Make the package's modules known without running its `__init__`.

    That imports all of them, 5 MB of what we have no use for (databases, Wi-Fi, 9P). Its modules
    import each other by their full names, so they do without.
    """
    spec = find_spec("pyroute2")
    if spec is not None and "pyroute2" not in sys.modules:
        sys.modules["pyroute2"] = module_from_spec(spec)


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1])))
