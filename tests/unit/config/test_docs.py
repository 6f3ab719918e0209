"""docs/configuration.md says what the schema says."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from odm_agent.config.load import parse
from odm_agent.config.schema import (
    AgentConfig,
    CapConfig,
    ClassConfig,
    Config,
    DelegationConfig,
    LifetimeConfig,
    PrefixConfig,
    TermsConfig,
    UnclassifiedConfig,
    UplinkConfig,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "[agent]": AgentConfig,
    "[unclassified]": UnclassifiedConfig,
    "[classes.NAME]": ClassConfig,
    "[classes.NAME.caps.TYPE]": CapConfig,
    "[classes.NAME.lifetimes.TYPE]": LifetimeConfig,
    "[prefixes.NAME]": PrefixConfig,
    "[delegations.NAME]": DelegationConfig,
    "[delegations.NAME.terms.TYPE]": TermsConfig,
    "[uplinks.NAME]": UplinkConfig,
}
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+) \|$", re.M)


def section(title: str) -> str:
    return DOCUMENT.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def documented_default(cell: str) -> object:
    if cell == "*required*":
        return msgspec.NODEFAULT
    return None if cell == "none" else tomllib.loads(f"x = {cell.strip('`')}")["x"]


def default_of(field: msgspec.structs.FieldInfo) -> object:
    factory = field.default_factory
    return field.default if factory is msgspec.NODEFAULT else factory()


def test_every_section_is_described() -> None:
    titles = set(re.findall(r"^## (\[.*\])$", DOCUMENT.read_text(), re.M))
    assert titles == SECTIONS.keys()
    assert {re.split(r"[].]", title[1:])[0] for title in titles} == set(Config.__struct_fields__)


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_described_with_its_default_and_no_other(title: str) -> None:
    rows = {key: documented_default(cell) for key, _, cell, _ in ROW.findall(section(title))}
    fields = {f.encode_name: default_of(f) for f in msgspec.structs.fields(SECTIONS[title])}
    assert rows == fields
    assert list(rows) == list(fields), "in the order of the schema"


@pytest.mark.parametrize("title", SECTIONS)
def test_every_word_of_a_choice_is_described(title: str) -> None:
    text = section(title)
    described = {key: f"{kind} {meaning}" for key, kind, _, meaning in ROW.findall(text)}
    for field in msgspec.inspect.type_info(SECTIONS[title]).fields:  # type: ignore[attr-defined]
        kinds = getattr(field.type, "types", (field.type,))
        for kind in kinds:
            if isinstance(kind, msgspec.inspect.LiteralType) and "fixed" not in kind.values:
                for word in kind.values:
                    assert f"`{word}`" in described[field.encode_name]


def test_the_example_is_a_configuration_that_would_be_taken() -> None:
    example, *others = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.S)
    for each in others:
        parse(each, Path("example.toml"))
    config = parse(example, Path("example.toml"))
    assert set(config.prefixes) == {"home6", "home4", "visit", "lan"}
    assert set(config.classes) == {"ssh", "browsing"}
