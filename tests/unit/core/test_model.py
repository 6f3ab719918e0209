from ipaddress import ip_address, ip_network

import pytest

from odm_agent.core.model import COSTLY, TYPES, AddressType, Family, Mode


def test_types_have_the_words_and_numbers_of_the_on_demand_field() -> None:
    assert {t.word: int(t) for t in TYPES} == {
        "fixed": 1,
        "session-lasting": 2,
        "nonpersistent": 3,
        "graceful-replacement": 4,
    }
    assert {t.word for t in COSTLY} == {"fixed", "session-lasting"}


def test_words_lead_back_to_types() -> None:
    assert all(AddressType.from_word(t.word) is t for t in AddressType)
    with pytest.raises(ValueError, match="no address type is called 'Fixed'"):
        AddressType.from_word("Fixed")


def test_a_family_is_the_ip_version() -> None:
    assert Family.of(ip_address("::1")) is Family.IPV6
    assert Family.of(ip_network("192.0.2.0/24")) is Family.IPV4
    assert [m.word for m in Mode] == ["off", "audit", "enforce"]
