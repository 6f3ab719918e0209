"""PostgreSQL as the lease database that all sites share: a cluster in a folder, by unix socket."""

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.lab.netns import checked
from tests.netlab.server import Server

_USER: Final = "postgres"
#: Whom Kea is in the database, and the database's name.
_KEA: Final = "kea"
_SCHEMA: Final = "/usr/share/kea/scripts/pgsql/dhcpdb_create.pgsql"
_SETUP_S: Final = 60.0
#: How often, and how many milliseconds apart, Kea looks whether a lost database is there again.
_RECONNECTS, _RECONNECT_MS = 60, 500


class Postgres(Server):
    """The cluster, made at the first start; its files are those of Debian's user for it."""

    name = "PostgreSQL"
    #: At once, whoever is connected (it calls this a fast shutdown).
    stop_signal = signal.SIGINT

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(None, folder.with_suffix(".log"))
        self._programs = _programs()

    def command(self) -> Sequence[str]:
        """No socket but the unix one; no fsync: a crash of the machine ends the lab, too."""
        return self._as_user(
            *("postgres", "-D", f"{self.folder}/cluster", "-c", "listen_addresses="),
            *("-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off"),
        )

    def ready(self) -> bool:
        """Whether it takes connections."""
        return os.path.exists(f"{self.folder}/.s.PGSQL.5432") and self.running and self._answers()

    def start(self) -> None:
        """Start it; the first time, make the cluster and Kea's tables before."""
        new = not (self.folder / "cluster").exists()
        if new:
            self.folder.mkdir(mode=0o755)
            shutil.chown(self.folder, _USER)
            checked(
                self._as_user(
                    *("initdb", "-D", f"{self.folder}/cluster", "-U", _KEA, "--auth=trust"),
                    *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
                ),
                timeout_s=_SETUP_S,
            )
        super().start()
        if new:
            self.sql("CREATE DATABASE kea", database="template1")
            checked(self._psql(_KEA, "-f", _SCHEMA), timeout_s=_SETUP_S)

    def sql(self, command: str, database: str = _KEA) -> str:
        """What the database answers: a line for each row, columns parted by `|`."""
        return checked(self._psql(database, "-c", command), timeout_s=_SETUP_S)

    @property
    def for_kea(self) -> Mapping[str, Any]:
        """Kea's `lease-database`. While the database is lost it serves nobody."""
        return {
            "type": "postgresql",
            "host": str(self.folder),
            "name": _KEA,
            "user": _KEA,
            "password": "",
            "max-reconnect-tries": _RECONNECTS,
            "reconnect-wait-time": _RECONNECT_MS,
            "on-fail": "stop-retry-exit",
        }

    def _answers(self) -> bool:
        try:
            return self.sql("SELECT 1", database="template1").strip() == "1"
        except AssertionError:
            return False

    def _psql(self, database: str, *what: str) -> list[str]:
        return [
            *("psql", "-h", str(self.folder), "-U", _KEA, "-d", database, "-X", "-A", "-t", "-q"),
            *("-v", "ON_ERROR_STOP=1", *what),
        ]

    def _as_user(self, program: str, *arguments: str) -> list[str]:
        who = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", "--"]
        return [*who, str(self._programs / program), *arguments]


def _programs() -> Path:
    """Where Debian has the newest version's programs: none of the server's is in PATH."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((each.parent for each in found), key=lambda path: int(path.parent.name))
