"""What the branches of the settings tree are made of: their base, and bounds that say what a value must be."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict

from relay.settings.values import parse_duration

__all__ = [
    "MIB",
    "Branch",
    "Duration",
    "IpText",
    "Network",
    "PortNumber",
    "SfToken",
    "lasting",
    "readable_by",
    "sized",
    "within",
]

MIB = 1024 * 1024


class Branch(BaseModel):
    """The base of every branch: frozen, and it refuses what it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        hide_input_in_errors=True,
    )


def within(low: int, high: int) -> AfterValidator:
    """Return the bound of a whole number, both ends included."""

    def check(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"must be {low}..{high}")
        return value

    return AfterValidator(check)


def lasting(low: float, high: float) -> AfterValidator:
    """Return the bound of a duration, in seconds, both ends included."""

    def check(value: timedelta) -> timedelta:
        if not low <= value.total_seconds() <= high:
            raise ValueError(f"must last {low:.15g}..{high:.15g} seconds")
        return value

    return AfterValidator(check)


def sized(low: int, high: int) -> AfterValidator:
    """Return the bound of a size, in bytes, both ends included."""

    def check(value: ByteSize) -> ByteSize:
        if not low <= value <= high:
            raise ValueError(f"must be {ByteSize(low).human_readable()}..{ByteSize(high).human_readable()}")
        return value

    return AfterValidator(check)


def readable_by(parse: Callable[[str], object]) -> AfterValidator:
    """Return the check that a parser can read the text; the parser raises ValueError with words after "must be"."""

    def check(value: str) -> str:
        parse(value)
        return value

    return AfterValidator(check)


def _sf_token(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]{0,127}", value):
        raise ValueError("must be a structured field token: a letter, then letters, digits, - . _ and the like")
    return value


def _ip_text(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        raise ValueError("must be an IP address; names are not possible here") from None


def _network(value: object) -> object:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError('must be a network, like "192.0.2.0/24"')
    try:
        return ip_network(value)
    except ValueError:
        pass
    try:
        loose = ip_network(value, strict=False)
    except ValueError:
        raise ValueError('must be a network, like "192.0.2.0/24"') from None
    raise ValueError(f'must be a network with all host bits zero, like "{loose}"')


Duration: TypeAlias = Annotated[timedelta, BeforeValidator(parse_duration)]
IpText: TypeAlias = Annotated[str, AfterValidator(_ip_text)]
Network: TypeAlias = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
PortNumber: TypeAlias = Annotated[int, within(1, 65535)]
SfToken: TypeAlias = Annotated[str, AfterValidator(_sf_token)]
