"""What was asked and answered on a link, as tshark reads it: the judge of DHCPv6 exchanges.

Neither the agent's codec nor the probe's reads these packets, so an error of ours can't hide.
"""

import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Final

from tests.lab.netns import NetNs, checked
from tests.lab.process import wait_until
from tests.netlab.probe_client import Message, Option

_TSHARK_S: Final = 60.0


@dataclass(frozen=True)
class Dissected:
    """One option. `fields` is what tshark has of its content: texts by name."""

    code: int
    data: bytes
    fields: dict[str, str]
    options: tuple["Dissected", ...]

    def below(self, code: int) -> list["Dissected"]:
        """The options of this code directly within."""
        return [each for each in self.options if each.code == code]


@dataclass(frozen=True)
class SeenPrefix:
    """An IAPREFIX; `type` is that of an option 65001 within it. Times in seconds."""

    prefix: IPv6Network
    preferred: int
    valid: int
    type: int | None


@dataclass(frozen=True)
class SeenIA:
    """An IA_PD; `type` is that of an option 65001 directly within it. Times in seconds."""

    iaid: int
    t1: int
    t2: int
    prefixes: tuple[SeenPrefix, ...]
    type: int | None
    status: int | None


@dataclass(frozen=True)
class Seen:
    """One DHCPv6 message. `time_s` is the capture's clock; `type` that of a top-level 65001."""

    time_s: float
    source: IPv6Address
    destination: IPv6Address
    message: Message
    xid: int
    options: tuple[Dissected, ...]
    ias: tuple[SeenIA, ...]
    type: int | None
    status: int | None
    malformed: bool

    @property
    def client(self) -> bytes:
        """The client's DUID."""
        return self._one(Option.CLIENT_ID)

    @property
    def server(self) -> bytes:
        """The server's DUID."""
        return self._one(Option.SERVER_ID)

    @property
    def elapsed_s(self) -> float:
        """What the client says of how long it has tried."""
        return int.from_bytes(self._one(Option.ELAPSED)) / 100

    @property
    def ia(self) -> SeenIA:
        """The only IA_PD."""
        (one,) = self.ias
        return one

    @property
    def asked(self) -> int | None:
        """The type in the place where the draft has it, of the only IA_PD's only IAPREFIX."""
        (prefix,) = self.ia.prefixes
        return prefix.type

    def has(self, code: int) -> bool:
        """Whether an option is there, at the top level."""
        return any(each.code == code for each in self.options)

    def _one(self, code: int) -> bytes:
        (one,) = [each.data for each in self.options if each.code == code]
        return one


class Wire:
    """A running capture of a link's DHCPv6 messages."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def messages(self, *wanted: Message) -> list[Seen]:
        """All messages so far, in order; of these kinds alone if any are named."""
        text = checked(
            ["tshark", "-r", str(self._file), "-T", "pdml", "-Y", "dhcpv6"], timeout_s=_TSHARK_S
        )
        seen = [_message(packet) for packet in ET.fromstring(text).iter("packet")]
        return [each for each in seen if not wanted or each.message in wanted]

    def exchanges(self) -> list[tuple[Message, Message | None]]:
        """Each transaction's kind and the kind of its last answer, in order."""
        found: dict[int, tuple[Message, Message | None]] = {}
        for each in self.messages():
            if each.message in (Message.ADVERTISE, Message.REPLY):
                if each.xid in found:
                    found[each.xid] = (found[each.xid][0], each.message)
            else:
                found.setdefault(each.xid, (each.message, None))
        return list(found.values())


@contextmanager
def wire(netns: NetNs, interface: str, folder: Path) -> Iterator[Wire]:
    """Capture DHCPv6 on an interface from now on. What was sent may be read at once."""
    file, log = folder / f"dhcp-{interface}.pcap", folder / f"dhcp-{interface}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            netns.command(
                [
                    *("tcpdump", "-i", interface, "-n", "-U", "--immediate-mode", "-Z", "root"),
                    *("-w", str(file), "udp and (port 546 or port 547)"),
                ]
            ),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "listening on" in log.read_text(), "tcpdump listens", 20)
        yield Wire(file)
    finally:
        process.kill()
        process.wait()


def _message(packet: ET.Element) -> Seen:
    by_name = {each.get("name"): each for each in packet.findall("proto")}
    dhcp, ipv6 = by_name["dhcpv6"], by_name["ipv6"]
    plain = _fields(dhcp)
    options = _options(dhcp)
    status = [each for each in options if each.code == Option.STATUS]
    return Seen(
        float(_fields(by_name["frame"])["time_epoch"].removesuffix(" seconds")),
        IPv6Address(_fields(ipv6)["src"]),
        IPv6Address(_fields(ipv6)["dst"]),
        Message(int(plain["msgtype"])),
        int(plain["xid"], 16),
        options,
        tuple(_ia(each) for each in options if each.code == Option.IA_PD),
        _type(options),
        int.from_bytes(status[0].data[:2]) if status else None,
        any("malformed" in (each.get("name") or "") for each in packet.iter()),
    )


def _fields(element: ET.Element) -> dict[str, str]:
    return {
        (each.get("name") or "").partition(".")[2]: each.get("show") or ""
        for each in element.findall("field")
    }


def _options(element: ET.Element) -> tuple[Dissected, ...]:
    found = []
    for each in element.findall("field"):
        fields = _fields(each)
        if "option.type" in fields:
            data = bytes.fromhex(each.get("value") or "")[4:]
            found.append(Dissected(int(fields["option.type"]), data, fields, _options(each)))
    return tuple(found)


def _ia(option: Dissected) -> SeenIA:
    status = option.below(Option.STATUS)
    return SeenIA(
        int(option.fields["iaid"], 16),
        int(option.fields["iaid.t1"]),
        int(option.fields["iaid.t2"]),
        tuple(_prefix(each) for each in option.below(Option.IAPREFIX)),
        _type(option.options),
        int.from_bytes(status[0].data[:2]) if status else None,
    )


def _prefix(option: Dissected) -> SeenPrefix:
    address, length = option.fields["iaprefix.pref_addr"], option.fields["iaprefix.pref_len"]
    return SeenPrefix(
        IPv6Network(f"{address}/{length}"),
        int(option.fields["iaprefix.pref_lifetime"]),
        int(option.fields["iaprefix.valid_lifetime"]),
        _type(option.options),
    )


def _type(options: tuple[Dissected, ...]) -> int | None:
    return next((each.data[0] for each in options if each.code == Option.TYPE), None)
