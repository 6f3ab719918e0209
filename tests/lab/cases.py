"""Parametrization by kind of socket, type and family, with names that read well."""

import pytest

from odm_agent.core.model import TYPES, AddressType, Family
from tests.lab.client import Kind


def each_kind(*kinds: Kind) -> pytest.MarkDecorator:
    """Run with `kind` of each; all kinds if none is named."""
    return pytest.mark.parametrize("kind", kinds or tuple(Kind), ids=lambda kind: kind.name)


def each_type(*types: AddressType) -> pytest.MarkDecorator:
    """Run with `type` of each; all four if none is named."""
    return pytest.mark.parametrize("type", types or TYPES, ids=lambda type: type.word)


each_family = pytest.mark.parametrize("family", tuple(Family), ids=lambda family: family.name)
