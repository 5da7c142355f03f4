"""What a principal may use: the settings' quotas for all, and what is different for some."""

from __future__ import annotations

from dataclasses import dataclass, replace

from relay.hooks import AuthScheme, Principal
from relay.settings import QuotaOverride, QuotaSettings

__all__ = ["QuotaLimits", "QuotaTable"]


@dataclass(frozen=True, slots=True)
class QuotaLimits:
    """The quotas of one principal. None is no bound."""

    tunnels: int | None = None
    "Tunnels at the same time."
    rate: float | None = None
    "New tunnels a second, on average."
    burst: int | None = None
    "New tunnels at once; None is what the rate gives in a second, and one at least."
    volume: int | None = None
    "Payload bytes in one period, both directions together."
    period: float = 86_400.0
    "Seconds that the volume must last."

    @property
    def is_bounded(self) -> bool:
        """True when there is anything to count."""
        return not (self.tunnels is None and self.rate is None and self.volume is None)

    @property
    def depth(self) -> float:
        """The most new tunnels that can be saved up."""
        if self.burst is not None:
            return float(self.burst)
        return max(1.0, self.rate or 0.0)


class QuotaTable:
    """Finds the quotas of a principal."""

    def __init__(self, settings: QuotaSettings) -> None:
        """Read the settings; afterwards a look-up is one or two of a dict."""
        self._all = QuotaLimits(
            tunnels=settings.tunnels,
            rate=settings.rate,
            burst=settings.burst,
            volume=settings.bytes,
            period=settings.period.total_seconds(),
        )
        schemes = {one.scheme: one for one in settings.overrides if one.scheme is not None}
        names = {one.principal: one for one in settings.overrides if one.principal is not None}
        self._by_scheme = {scheme: _changed(self._all, schemes.get(scheme.value)) for scheme in AuthScheme}
        self._by_name = {
            (name, scheme): _changed(limits, one)
            for name, one in names.items()
            for scheme, limits in self._by_scheme.items()
        }

    @property
    def is_bounded(self) -> bool:
        """True when any principal has a quota."""
        found = [*self._by_scheme.values(), *self._by_name.values()]
        return any(limits.is_bounded for limits in found)

    def limits(self, principal: Principal) -> QuotaLimits:
        """The quotas of a principal: its own, else its scheme's, else those for all."""
        found = self._by_name.get((principal.name, principal.scheme))
        return self._by_scheme[principal.scheme] if found is None else found


def _changed(limits: QuotaLimits, override: QuotaOverride | None) -> QuotaLimits:
    if override is None:
        return limits
    chosen = override.chosen
    return replace(
        limits,
        tunnels=override.tunnels if "tunnels" in chosen else limits.tunnels,
        rate=override.rate if "rate" in chosen else limits.rate,
        burst=override.burst if "burst" in chosen else limits.burst,
        volume=override.bytes if "bytes" in chosen else limits.volume,
    )
