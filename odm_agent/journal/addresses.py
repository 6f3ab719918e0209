"""What addresses are made of and held under: the secret, their numbers, the leases."""

import secrets
from collections.abc import Mapping
from ipaddress import ip_address

from odm_agent.core.model import IPAddress
from odm_agent.journal.database import Database
from odm_agent.journal.errors import damaged
from odm_agent.prefixes.memory import Given


class Addresses(Database):
    """`secret`, `addresses`, `prefixes_by_interface` and `leases`."""

    def secret(self) -> bytes:
        """The 32 random bytes that stable addresses are made from (RFC 7217), always the same."""
        with self.transaction():
            found = self._db.execute("SELECT value FROM secret").fetchone()
            if found is None:
                found = (secrets.token_bytes(32),)
                self._db.execute("INSERT INTO secret VALUES (?)", found)
        return bytes(found[0])

    def prefixes_by_interface(self) -> frozenset[str]:
        """The names of prefixes whose addresses were once made with the interface's name."""
        return frozenset(str(name) for (name,) in self._read("SELECT * FROM prefixes_by_interface"))

    def addresses(self) -> dict[IPAddress, Given]:
        """Every address that was ever made, by the number that it has in its pool."""
        rows = self._read("SELECT address, number, conflict FROM addresses")
        try:
            return {ip_address(str(a)): Given(int(str(n)), bool(other)) for a, n, other in rows}
        except ValueError as error:
            raise damaged(self.path, error) from error

    def remember_addresses(
        self, before: Mapping[IPAddress, Given], now: Mapping[IPAddress, Given]
    ) -> None:
        """Write down what differs between what `addresses` has told and what it shall tell."""
        gone = [(str(address),) for address in before.keys() - now.keys()]
        made = [
            (str(address), given.number, given.conflict)
            for address, given in now.items()
            if before.get(address) != given
        ]
        if not gone and not made:
            return
        with self.transaction():
            self._db.executemany("DELETE FROM addresses WHERE address = ?", gone)
            self._db.executemany("INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)", made)

    def leases(self) -> dict[int, str]:
        """What `keep_leases` has kept: the grants, by the ids of their prefixes."""
        query = "SELECT prefix_id, CAST(granted AS BLOB) FROM leases ORDER BY prefix_id"
        return {  # as bytes, since damaged text may be none: whoever reads it can tell
            int(str(prefix_id)): bytes(granted).decode(errors="surrogateescape")
            for prefix_id, granted in self._read(query)
            if isinstance(granted, bytes)
        }

    def keep_leases(self, changed: Mapping[int, str | None]) -> None:
        """Write down grants, as text, by the ids of their prefixes; None: there is none now."""
        with self.transaction():
            self._db.executemany(
                "DELETE FROM leases WHERE prefix_id = ?", [(each,) for each in changed]
            )
            kept = [(id_, text) for id_, text in changed.items() if text is not None]
            self._db.executemany("INSERT INTO leases VALUES (?, ?)", kept)
