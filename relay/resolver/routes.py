"""Which upstreams are asked for which names: the longest suffix that fits, label by label."""

from __future__ import annotations

from collections.abc import Mapping

import dns.name

from relay.resolver.upstream import Answer, Asker, Question

__all__ = ["Routes"]


class Routes:
    """Chooses an asker by the name asked for."""

    def __init__(self, routes: Mapping[str, Asker], other: Asker) -> None:
        """Keep the askers.

        Args:
            routes: by suffix, without a final dot; a name that is the suffix itself belongs to it.
            other: asked for all other names.
        """
        self._routes = {dns.name.from_text(suffix): asker for suffix, asker in routes.items()}
        self._other = other

    def covers(self, name: dns.name.Name) -> bool:
        """Say whether a name has a route of its own."""
        return self._find(name) is not None

    async def ask(self, question: Question, deadline: float) -> Answer:
        """Ask the one that the name belongs to.

        Raises:
            RelayError: as the asker raises it.
        """
        return await (self._find(question.name) or self._other).ask(question, deadline)

    def _find(self, name: dns.name.Name) -> Asker | None:
        if not self._routes:
            return None
        while True:
            found = self._routes.get(name)
            if found is not None:
                return found
            if len(name.labels) <= 1:
                return None
            name = name.parent()
