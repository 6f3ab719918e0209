"""`make netlab`, `make netlab-down`, `make netlab-status`: the reference network to look around in.

python -m tests.netlab up | down | status | sweep NUMBER | keep (what `up` leaves running)
"""

import json
import os
import signal
import sys
import time
from functools import partial
from typing import Any, Final

from tests.netlab import keeper
from tests.netlab.overview import overview
from tests.netlab.topology import NetLab

_USAGE: Final = "usage: python -m tests.netlab up | down | status | sweep NUMBER"


def main(arguments: list[str]) -> int:
    """Do what the command line says; 0: done (status: it is up)."""
    match arguments:
        case ["up" | "down" | "status" | "keep" as verb]:
            do = {"up": _up, "down": _down, "status": _status, "keep": _keep}[verb]
        case ["sweep", number] if number.isdigit():
            do = partial(_sweep, int(number))
        case _:
            print(_USAGE, file=sys.stderr)
            return 2
    if os.geteuid() != 0:
        print("The laboratory makes network namespaces: run this as root.", file=sys.stderr)
        return 2
    try:
        return do()
    except keeper.LabError as error:
        print(f"netlab: {error}", file=sys.stderr)
        return 1


def _up() -> int:
    began_s = time.monotonic()
    keeper.start()
    print(overview(keeper.described()))
    print(f"up in {time.monotonic() - began_s:.1f} s; `make netlab-down` removes it.")
    return 0


def _down() -> int:
    if not keeper.STATE.exists():
        print("There is no laboratory.")
        return 0
    began_s = time.monotonic()
    for each in keeper.stop():
        print(f"removed, since its keeper had not: {each}")
    print(f"down in {time.monotonic() - began_s:.1f} s; nothing is left.")
    return 0


def _sweep(number: int) -> int:
    for each in keeper.sweep_after(number):
        print(f"removed: {each}")
    return 0


def _status() -> int:
    said = keeper.described()
    if said:
        print(overview(said))
        return 0
    if keeper.STATE.exists():
        print("What is left of a laboratory whose keeper is gone; `make netlab-down` removes it.")
    else:
        print("There is no laboratory; `make netlab` makes one.")
    return 1


def _keep() -> int:
    """Hold the laboratory until we are told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with NetLab() as lab:
        for name, netns in lab.namespaces.items():
            (keeper.STATE / name).symlink_to(netns.path)
        written = keeper.STATE / "described.new"
        written.write_text(json.dumps(_description(lab)))
        written.rename(keeper.STATE / "described")
        while True:
            signal.pause()


def _description(lab: NetLab) -> dict[str, Any]:
    return {
        "number": os.getpid(),
        "folder": str(lab.folder),
        "postgres": str(lab.postgres.folder),
        "namespaces": {name: netns.name for name, netns in lab.namespaces.items()},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
