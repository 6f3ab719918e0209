"""The virtual host with the agent's own source of delegated prefixes, and servers on its link."""

from pathlib import Path
from random import Random

from odm_agent.core.clock import Moment
from odm_agent.core.effects import GiveBack, Release, Request
from odm_agent.core.model import IPAddress
from odm_agent.sources.base import Input, Linked, Output, Received, Send, Source
from odm_agent.sources.dhcpv6.codec import packed, parsed
from odm_agent.sources.dhcpv6.messages import Codes, Message
from odm_agent.sources.dhcpv6.settings import Settings
from odm_agent.sources.dhcpv6.source import DelegationSource
from odm_agent.sources.static import StaticSource
from tests.virtual.delegated import DUID, LINK, SETTINGS
from tests.virtual.dhcpv6_server import Server
from tests.virtual.world import World

#: How long a message is under way (seconds).
_DELAY_S = 0.01


class Recorded(DelegationSource):
    """The source, with all that it was told and said."""

    def __init__(self, settings: Settings, seed: int) -> None:
        super().__init__(settings, DUID, Random(seed))
        self.seed = seed
        self.record: list[tuple[Input, Moment, list[Output]]] = []

    def step(self, given: Input, now: Moment) -> list[Output]:
        said = list(super().step(given, now))
        self.record.append((given, now, said))
        return said


class DelegatedWorld(World):
    """One host, whose prefixes come from servers by DHCPv6."""

    def __init__(self, folder: Path, servers: list[Server], settings: Settings = SETTINGS) -> None:
        self.servers, self.settings = servers, settings
        self.sent: list[Message] = []
        self._seeds = 0
        super().__init__(folder)

    def sources(self) -> list[Source]:
        self._seeds += 1
        self.source = Recorded(self.settings, self._seeds)
        return [StaticSource(), self.source]

    def start(self) -> None:
        super().start()
        self.tell_link(self.kernel.links[LINK].up)

    def change_link(self, up: bool) -> None:
        super().change_link(up)
        self.tell_link(up)

    def tell_link(self, up: bool) -> None:
        """As the agent's watch of links does."""
        self.driver.feed(self.source.name, Linked(LINK, up))
        self.run()

    def send(self, source: str, message: Send) -> None:
        """The servers hear it, and answer."""
        codes = Codes(self.settings.option_code)
        self.sent.append(parsed(message.data, codes))
        for server in self.servers:
            if (answer := server.answer(self.sent[-1])) is not None:
                data, sender = packed(answer, codes), server.address
                self.later(2 * _DELAY_S, lambda d=data, s=sender: self._hear(d, s))  # type: ignore[misc]

    def _hear(self, data: bytes, sender: str) -> None:
        self.driver.feed(self.source.name, Received(data, sender))

    def asked(self, said: Request | Release | GiveBack) -> None:
        self.told.append(said)

    def is_granted(self, address: IPAddress) -> bool:
        return str(address).startswith("2001:db8:")

    def replay_source(self) -> None:
        """The same source, told the same at the same moments, says the same."""
        again = DelegationSource(self.settings, DUID, Random(self.source.seed))
        for given, now, said in self.source.record:
            assert list(again.step(given, now)) == said
