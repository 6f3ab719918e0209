"""When a router's routes change: the network's own part of a handover."""

import os
import re
import subprocess
import time
from datetime import datetime
from ipaddress import IPv6Network
from pathlib import Path
from typing import Final, Self

from tests.lab.netns import NetNs

_LINE: Final = re.compile(r"\[(?P<at>\S+)\] (?P<network>\S+)")


class RouteChanges:
    """What `ip monitor` tells of a namespace's IPv6 routes, from when it is made."""

    def __init__(self, netns: NetNs, file: Path) -> None:
        self._file = file
        with file.open("wb") as output:
            self._process = subprocess.Popen(
                netns.command(["ip", "-ts", "-6", "monitor", "route"]),
                stdout=output,
                env={**os.environ, "TZ": "UTC"},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def first_s(self, network: IPv6Network, since_s: float) -> float | None:
        """When a network's route was first set since then (both monotonic); None: it was not."""
        to_monotonic_s = time.monotonic() - time.time()
        for line in self._file.read_text().splitlines():
            found = _LINE.match(line)
            if found is None or found["network"] != str(network):
                continue
            at_s = datetime.fromisoformat(f"{found['at']}+00:00").timestamp() + to_monotonic_s
            if at_s > since_s:
                return at_s
        return None
