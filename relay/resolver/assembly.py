"""Puts together who is asked: the upstreams, and the routes of single domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio.abc

from relay.resolver.forward import Forwarder
from relay.resolver.routes import Routes
from relay.settings import ResolverSettings, Upstream
from relay.telemetry import Metrics

__all__ = ["make_routes"]


def make_routes(
    settings: ResolverSettings,
    upstreams: Sequence[Upstream],
    routes: Mapping[str, Sequence[Upstream]],
    tasks: anyio.abc.TaskGroup,
    metrics: Metrics,
) -> Routes:
    """Make the askers of all upstreams.

    Args:
        settings: how they are spoken to.
        upstreams: asked for all names that have no route.
        routes: upstreams by suffix.
        tasks: owns what goes on between questions.
        metrics: where queries are counted.

    Raises:
        ValueError: there is no upstream.
        relay.settings.SettingsError: an upstream's certificate cannot be checked.
    """
    below = {suffix: Forwarder(chosen, settings, tasks, metrics) for suffix, chosen in routes.items()}
    return Routes(below, Forwarder(upstreams, settings, tasks, metrics))
