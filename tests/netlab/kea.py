"""Kea as an access site's DHCPv6 server, told by vagrant/network/kea-dhcp6.conf."""

import json
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any, Final

from tests.lab.netns import NetNs
from tests.netlab.plan import POOL_LENGTH, SitePlan, WireType, filled, neighbour
from tests.netlab.server import Server, listens

PORT: Final = 547
_CONTROL_S: Final = 10.0
#: What tells Kea where it may have files: pid, lock, leases, control socket, log, hook.
_FOLDERS: Final = (
    "KEA_PIDFILE_DIR",
    "KEA_LOCKFILE_DIR",
    "KEA_DHCP_DATA_DIR",
    "KEA_CONTROL_SOCKET_DIR",
    "KEA_LOG_FILE_DIR",
    "KEA_HOOK_SCRIPTS_PATH",
)


@dataclass(frozen=True)
class Terms:
    """Lifetimes and times that a subnet gives, in seconds."""

    preferred: int
    valid: int
    renew: int
    rebind: int


@dataclass(frozen=True)
class Rules:
    """What a site's Kea is told differently from the file.

    `pool_lengths`: a type's pool is this long (63: it has two prefixes). `known`: DUIDs that it
    knows, in hexadecimal. `known_only`: none but these get fixed prefixes. `debug`: it says why.
    `untyped`: it knows nothing of types and gives everybody nonpersistent prefixes, as most
    servers there are. `reclaim_s`: how often it looks for expired leases. `grace_s`: how long who
    comes from the other site keeps the graceful-replacement prefix that he has of it.
    """

    pool_lengths: Mapping[WireType, int] = field(default_factory=dict)
    terms: Mapping[WireType, Terms] = field(default_factory=dict)
    known: Sequence[str] = ()
    known_only: bool = False
    untyped: bool = False
    reclaim_s: int = 1
    grace_s: int = 30
    debug: bool = False


#: As the file is.
STANDARD: Final = Rules()


@dataclass(frozen=True)
class Lease:
    """A prefix that the database says is delegated. Lifetimes are in seconds."""

    prefix: IPv6Network
    subnet_id: int
    duid: bytes
    iaid: int
    preferred: int
    valid: int


class Kea(Server):
    """One site's server. Without a database to share it keeps leases in a file (memfile)."""

    def __init__(
        self,
        netns: NetNs,
        interface: str,
        folder: Path,
        site: SitePlan,
        rules: Rules = STANDARD,
        *,
        database: Mapping[str, Any] | None = None,
        hook: Path | None = None,
    ) -> None:
        """`database` is Kea's `lease-database`; `hook` is run for what happens to leases."""
        self.name = f"Kea of site {site.letter}"
        self.folder = folder
        self._interface, self._site = interface, site
        self._database = database or {
            "type": "memfile",
            "persist": True,
            "name": f"{folder}/leases.csv",
            "lfc-interval": 0,
        }
        self._hook = hook
        super().__init__(netns, folder / "kea.log")
        self.configure(rules)

    def configure(self, rules: Rules) -> None:
        """Write what holds from the next start on."""
        (self.folder / "kea.conf").write_text(json.dumps(self._configuration(rules), indent=1))

    def command(self) -> Sequence[str]:
        """In the foreground, as it is unless told otherwise."""
        return ["kea-dhcp6", "-c", f"{self.folder}/kea.conf"]

    def environment(self) -> Mapping[str, str]:
        """Its folder in the place of all that are compiled in: two instances must not meet there.

        From 2.6.3 on it takes files of other folders for none of its own, and refuses them.
        """
        return dict.fromkeys(_FOLDERS, str(self.folder))

    def ready(self) -> bool:
        """Whether it hears clients (it says that it has started also where it does not)."""
        return listens(self.pid, "udp6", PORT) and (self.folder / "control").is_socket()

    def stop(self) -> None:
        """Stop it; what it leaves in its folder must not be taken for a running one's."""
        super().stop()
        (self.folder / "control").unlink(missing_ok=True)

    def kill(self) -> None:
        """End it as a crash would; its socket and its pid file stay, and hinder no start."""
        super().kill()
        (self.folder / "control").unlink(missing_ok=True)

    def ask(self, command: str, **arguments: object) -> Any:
        """The arguments of the answer to a command of Kea's control socket; None: nothing found."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(_CONTROL_S)
            control.connect(str(self.folder / "control"))
            told = {"command": command} | ({"arguments": arguments} if arguments else {})
            control.sendall(json.dumps(told).encode())
            answer = json.loads(b"".join(iter(lambda: control.recv(65536), b"")))
        if answer["result"] == 3:
            return None
        assert answer["result"] == 0, f"{self.name}, asked for {command}: {answer}"
        return answer.get("arguments")

    def leases(self) -> list[Lease]:
        """All prefixes that are delegated now, by the server's own database."""
        found = self.ask("lease6-get-all") or {"leases": []}
        return [
            Lease(
                IPv6Network(f"{each['ip-address']}/{each['prefix-len']}"),
                each["subnet-id"],
                bytes.fromhex(each["duid"].replace(":", "")),
                each["iaid"],
                each["preferred-lft"],
                each["valid-lft"],
            )
            for each in found["leases"]
            if each["type"] == "IA_PD" and each["state"] == 0
        ]

    def _configuration(self, rules: Rules) -> dict[str, Any]:
        site, other = self._site, neighbour(self._site)
        graceful = WireType.GRACEFUL_REPLACEMENT
        moved = other.pools[graceful].network_address.packed[: POOL_LENGTH // 8].hex()
        libraries = next(Path("/usr/lib").glob("*/kea/hooks"))
        hooks: list[dict[str, Any]] = [{"library": f"{libraries}/libdhcp_lease_cmds.so"}]
        if self._hook is not None:
            hooks.append(
                {
                    "library": f"{libraries}/libdhcp_run_script.so",
                    "parameters": {"name": str(self._hook), "sync": False},
                }
            )
        words: dict[str, object] = {
            "interface": self._interface,
            "folder": self.folder,
            "lease_database": json.dumps(dict(self._database)),
            "hooks": json.dumps(hooks),
            "server_id": f"{site.number:02x}",
            "known": json.dumps(
                [{"duid": each, "hostname": "known.example"} for each in rules.known]
            ),
            "fixed_class": "known-3" if rules.known_only else "ask-3",
            "neighbour_octets": f"0x{moved}",
            "id_moved": other.subnet_id(graceful),
            "prefix_moved": other.pools[graceful].network_address,
            "reclaim": rules.reclaim_s,
            "grace": rules.grace_s,
            "severity": "DEBUG" if rules.debug else "INFO",
        }
        for type in WireType:
            words[f"id_{type:d}"] = site.subnet_id(type)
            words[f"prefix_{type:d}"] = site.pools[type].network_address
            words[f"length_{type:d}"] = rules.pool_lengths.get(type, POOL_LENGTH)
        text = re.sub(r"(?m)^\s*//.*$", "", filled("kea-dhcp6.conf", **words))
        whole: dict[str, Any] = json.loads(text)
        network = whole["Dhcp6"]["shared-networks"][0]
        for type, terms in rules.terms.items():
            _subnet(network, site.subnet_id(type)).update(
                {
                    "preferred-lifetime": terms.preferred,
                    "valid-lifetime": terms.valid,
                    "renew-timer": terms.renew,
                    "rebind-timer": terms.rebind,
                }
            )
        if rules.untyped:
            only = _subnet(network, site.subnet_id(WireType.NONPERSISTENT))
            del only["client-class"], only["option-data"]
            network["subnet6"] = [only]
            del whole["Dhcp6"]["client-classes"], whole["Dhcp6"]["option-def"]
        return whole


def _subnet(network: dict[str, Any], number: int) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in network["subnet6"] if each["id"] == number)
    return found
