"""Puts together who is asked: upstreams or authoritative servers, a validator above, routes of single domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import anyio.abc
import dns.name

from relay.resolver.dnssec import TrustAnchors, ValidatingAsker, read_trust_anchors
from relay.resolver.forward import Forwarder
from relay.resolver.recursion import BoundedAsker, Delegation, RecursionLimits, Recursor, read_root_hints
from relay.resolver.routes import Routes
from relay.resolver.upstream import Answer, Asker, Question
from relay.settings import ResolverSettings, SettingsError, Upstream
from relay.telemetry import Metrics

__all__ = ["check_resolver_files", "make_routes"]

T = TypeVar("T")


class _AdBit:
    """Decides what the AD bit of an answer is worth: something from an encrypted upstream that is to be trusted."""

    def __init__(self, below: Asker, *, is_trusted: bool) -> None:
        self._below = below
        self._is_trusted = is_trusted

    async def ask(self, question: Question, deadline: float) -> Answer:
        """Ask the asker below; see there for what it raises."""
        answer = await self._below.ask(question, deadline)
        is_worth = self._is_trusted and answer.is_encrypted
        return replace(answer, is_authenticated=answer.is_authenticated and is_worth)


def make_routes(
    settings: ResolverSettings,
    upstreams: Sequence[Upstream],
    routes: Mapping[str, Sequence[Upstream]],
    tasks: anyio.abc.TaskGroup,
    metrics: Metrics,
    authority_port: int,
) -> Routes:
    """Make the askers of all upstreams, or one that needs none.

    Args:
        settings: how they are spoken to.
        upstreams: asked for all names that have no route; none when the settings say to iterate.
        routes: upstreams by suffix.
        tasks: owns what goes on between questions.
        metrics: where queries are counted.
        authority_port: of authoritative servers.

    Raises:
        ValueError: there is no upstream.
        relay.settings.SettingsError: an upstream's certificate cannot be checked, or trust anchors or root hints not
            be read.
    """
    anchors = _anchors(settings)
    below: dict[str, Asker] = {}
    for suffix, chosen in routes.items():
        forwarder = Forwarder(chosen, settings, tasks, metrics)
        own = None if anchors is None else anchors.below(dns.name.from_text(suffix))
        below[suffix] = _judged(forwarder, settings, own)
    if settings.mode == "forward":
        return Routes(below, _judged(Forwarder(upstreams, settings, tasks, metrics), settings, anchors))
    limits = RecursionLimits(queries=settings.max_work)
    routed = [dns.name.from_text(suffix) for suffix in routes]
    recursor = Recursor(_hints(settings), limits=limits, metrics=metrics, port=authority_port, routed=routed)
    return Routes(below, BoundedAsker(_judged(recursor, settings, anchors), limits))


def check_resolver_files(settings: ResolverSettings) -> None:
    """Read the files that the settings name, before anything starts.

    Raises:
        relay.settings.SettingsError: one of them cannot be used.
    """
    _anchors(settings)
    if settings.mode == "iterate":
        _hints(settings)


def _judged(asker: Asker, settings: ResolverSettings, anchors: TrustAnchors | None) -> Asker:
    """Put above an asker what decides whether its answers are true; without anchors, nobody does."""
    if anchors is not None and anchors.keys:
        return ValidatingAsker(asker, anchors)
    return _AdBit(asker, is_trusted=settings.dnssec == "trust_ad")


def _anchors(settings: ResolverSettings) -> TrustAnchors | None:
    if settings.dnssec != "validate":
        return None
    return _read(
        "resolver.trust_anchors",
        settings.trust_anchors,
        lambda path: read_trust_anchors(path, settings.unsigned_domains),
    )


def _hints(settings: ResolverSettings) -> Delegation:
    return _read("resolver.root_hints", settings.root_hints, read_root_hints)


def _read(setting: str, path: Path | None, read: Callable[[Path | None], T]) -> T:
    try:
        return read(path)
    except OSError as error:
        raise SettingsError(f"{setting}: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{setting}: {path} {error}") from error
