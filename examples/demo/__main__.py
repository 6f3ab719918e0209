"""Set the stage, run the programs, show the table, remove everything; exit code 1 if one broke."""

import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from examples.demo.asking import Asking
from examples.demo.asking import table as asking_table
from examples.demo.ending import TERMS, Ending
from examples.demo.ending import table as ending_table
from examples.demo.moving import Moving
from examples.demo.moving import table as moving_table
from examples.demo.programs import CLASSES, NO_CLASS
from examples.demo.show import Show, table
from tests.lab.agent import Agent, Settings
from tests.lab.cgroup import Cgroup
from tests.lab.host import PREFIXES, Site
from tests.netlab.correspondent import Dnsmasq, Iperf, Nginx, WitnessServer

_SCENE = """\
         w0 -- gateway A --+      A: fixed and session-lasting prefixes
   host                    +-- correspondent with nginx, dnsmasq, iperf3
         w1 -- gateway B --+      B: nonpersistent and graceful-replacement prefixes
"""


def main() -> int:
    """The demo; what it made in the kernel is gone when this returns or raises."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    if os.geteuid() != 0:
        console.print("The demo makes network namespaces and loads eBPF programs: run it as root.")
        return 2
    # An end by SIGTERM unwinds as well, and one by SIGINT also where a shell has it ignored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.monotonic()
    console.print(_SCENE, highlight=False)
    try:
        with ExitStack() as stack:
            show, ending, asking, moving = _stage(stack, console)
            outcomes, scenes = list(show.outcomes()), list(ending.scenes())
            asked, moved = list(asking.scenes()), list(moving.scenes())
    except KeyboardInterrupt:
        console.print("interrupted; everything is removed")
        return 130
    console.print(table(outcomes))
    console.print(ending_table(scenes))
    console.print(asking_table(asked))
    console.print(moving_table(moved))
    every = [
        *(each.wrong for each in outcomes),
        *(each.wrong for each in scenes),
        *(each.wrong for each in asked),
        *(each.wrong for each in moved),
    ]
    wrong = [each for each in every if each]
    console.print(
        f"{len(every) - len(wrong)} of {len(every)} as promised,"
        f" everything removed, {time.monotonic() - started:.0f} s."
    )
    return 1 if wrong else 0


def _stage(stack: ExitStack, console: Console) -> tuple[Show, Ending, Asking, Moving]:
    """Make host, network, servers and agent; the stack removes them in reverse order."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="odm-demo-")))
    status = stack.enter_context(console.status("making the network and the servers"))
    site = stack.enter_context(Site())
    servers: dict[str, WitnessServer] = {
        "nginx": stack.enter_context(Nginx(site.c, folder)),
        "dnsmasq": stack.enter_context(Dnsmasq(site.c, folder)),
        "iperf3": stack.enter_context(Iperf(site.c, folder)),
    }
    status.update("starting the agent")
    attached = stack.enter_context(Cgroup("demo"))
    cgroups = {name: attached.child(name) for name in (*CLASSES, NO_CLASS)}
    settings = Settings(prefixes=PREFIXES, classes=CLASSES, extra=TERMS)
    agent = Agent(site.host, attached, folder, settings)
    stack.callback(agent.close)  # before the start, which may be interrupted
    agent.start()
    return (
        Show(site, agent, cgroups, servers, status),
        Ending(site, agent, cgroups, servers["nginx"], status),
        Asking(stack, folder, status),
        Moving(stack, folder, status),
    )


if __name__ == "__main__":
    sys.exit(main())
