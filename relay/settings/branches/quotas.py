"""What one principal may use of the relay."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ByteSize, field_serializer, model_validator

from relay.settings.branches.bounds import Branch, Duration, lasting, within

__all__ = ["QuotaOverride", "QuotaSettings"]

UNLIMITED = "unlimited"
"What an override says to lift a quota."


def _lifted(value: object) -> object:
    return None if value == UNLIMITED else value


def _rate(value: float | None) -> float | None:
    if value is not None and not 0.001 <= value <= 100_000:
        raise ValueError("must be 0.001..100000")
    return value


def _volume(value: ByteSize | None) -> ByteSize | None:
    if value is not None and value < 1024:
        raise ValueError("must be 1KiB or more")
    return value


def _count(value: int | None) -> int | None:
    if value is not None and not 1 <= value <= 10_000_000:
        raise ValueError("must be 1..10000000")
    return value


_Count: TypeAlias = Annotated[int | None, BeforeValidator(_lifted), AfterValidator(_count)]
_Rate: TypeAlias = Annotated[float | None, BeforeValidator(_lifted), AfterValidator(_rate)]
_Volume: TypeAlias = Annotated[ByteSize | None, BeforeValidator(_lifted), AfterValidator(_volume)]


_SchemeName: TypeAlias = Literal["open", "preshared", "bearer", "basic", "certificate", "privatetoken", "application"]


class QuotaOverride(Branch):
    """The quotas of one principal, or of all principals of a scheme. What is left out stays as it is for all."""

    principal: str | None = None
    """A principal's name, such as `preshared-1`."""
    scheme: Literal["open", "preshared", "bearer", "basic", "certificate", "privatetoken", "application"] | None = (
        None
    )
    """How principals prove who they are."""
    tunnels: _Count = None
    """As `quotas.tunnels`."""
    rate: _Rate = None
    """As `quotas.rate`."""
    burst: _Count = None
    """As `quotas.burst`."""
    bytes: _Volume = None
    """As `quotas.bytes`."""

    @model_validator(mode="after")
    def _names_one(self) -> QuotaOverride:
        if (self.principal is None) == (self.scheme is None):
            raise ValueError("must name either a principal or a scheme")
        if self.principal == "":
            raise ValueError("must name a principal that is not empty")
        if not self.chosen:
            raise ValueError("must set one of tunnels, rate, burst and bytes")
        return self

    @property
    def chosen(self) -> frozenset[str]:
        """The names of the quotas that it sets."""
        return frozenset(self.model_fields_set - {"principal", "scheme"})

    @field_serializer("tunnels", "rate", "burst", "bytes")
    def _as_written(self, value: object) -> Any:
        return UNLIMITED if value is None else value


class QuotaSettings(Branch):
    """What one principal may use: the same for each, unless an override says otherwise. By default there is no bound.

    Clients of a scheme that does not say who they are (`auth.open`) are counted by the connection.
    """

    tunnels: _Count = None
    """Tunnels that a principal may have at the same time."""
    rate: _Rate = None
    """New tunnels a second that a principal may ask for, on average."""
    burst: _Count = None
    """New tunnels that a principal may ask for at once before `quotas.rate` bites. Not set: as many as the rate gives
    in a second, and one at least."""
    bytes: _Volume = None
    """Payload bytes, both directions together, that a principal may have relayed in one `quotas.period`. When they
    are used up, new tunnels are refused and running ones are closed."""
    period: Annotated[Duration, lasting(1, 31_622_400)] = timedelta(days=1)
    """How long `quotas.bytes` must last. A period begins with the first tunnel after the last one."""
    principals: Annotated[int, within(1, 10_000_000)] = 100_000
    """Principals whose use is remembered. Who used nothing lately is forgotten; when that makes no room, a principal
    that is not known yet is refused."""
    overrides: tuple[QuotaOverride, ...] = ()
    """Tables with `principal` or `scheme`, and what is different for it: `tunnels`, `rate`, `burst`, `bytes`, each as
    above or "unlimited". A principal's own goes before its scheme's."""

    @model_validator(mode="after")
    def _fits_together(self) -> QuotaSettings:
        if self.burst is not None and self.rate is None:
            raise ValueError("burst, rate: the first has no effect without the second")
        named = [(one.principal, one.scheme) for one in self.overrides]
        if len(set(named)) != len(named):
            raise ValueError("overrides: must have one entry per principal or scheme")
        for one in self.overrides:
            if one.burst is not None and (one.rate if "rate" in one.chosen else self.rate) is None:
                raise ValueError("overrides: burst has no effect without rate")
        return self
