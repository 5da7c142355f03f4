"""What a token admits when it admits a connection for its life: everything on it, and it is spent once.

Exchanges that come together, with one token or with several, are admitted one after the other: the first good token
admits the connection, and no other is looked at. That goes on in a task of its own when the exchange that brought the
token is aborted meanwhile: the token may be spent by then, and the connection shall have what it was spent for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from relay.auth.private_token.checks import ChecksBusy
from relay.errors import Failure, FailureKind, RelayError, Side
from relay.hooks import Principal
from relay.telemetry import get_logger

__all__ = ["Admit", "ConnectionPass"]

_WAITING = 128
"Exchanges of one connection that wait for its admission."

Admit = Callable[[], Awaitable[Principal | None]]
"Checks a token and spends it; None when it is not good."


class ConnectionPass:
    """A connection's admission, kept in its context."""

    def __init__(self) -> None:
        """Admit nobody yet."""
        self.principal: Principal | None = None
        "Who is admitted, once somebody is."
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def admit(self, tasks: asyncio.TaskGroup, check: Admit) -> Principal | None:
        """Have a token admit the connection, unless another one has meanwhile.

        Args:
            tasks: owns the check.
            check: checks the token and spends it.

        Returns:
            Who is admitted, or None when the token is not good.

        Raises:
            RelayError: from the check.
            ChecksBusy: too many exchanges of this connection wait.
        """
        if self._waiting >= _WAITING:
            raise ChecksBusy
        self._waiting += 1
        answer: asyncio.Future[Principal | Failure | None] = asyncio.get_running_loop().create_future()
        tasks.create_task(self._decide(check, answer))
        found = await answer
        if isinstance(found, Failure):
            raise RelayError(found)
        return found

    async def _decide(self, check: Admit, answer: asyncio.Future[Principal | Failure | None]) -> None:
        """Check one token in its turn. Whatever happens is an answer, so that it stays with this exchange."""
        found: Principal | Failure | None = Failure(FailureKind.AUTHENTICATION_UNAVAILABLE, Side.RELAY)
        try:
            async with self._turn:
                if self.principal is None:
                    self.principal = await check()
                found = self.principal
        except RelayError as error:
            found = error.failure
        except Exception as error:  # noqa: BLE001 - a fault costs this exchange only
            get_logger().error("token_check_failed", exception_type=type(error).__name__)
            found = Failure(FailureKind.PROXY_INTERNAL_ERROR, Side.RELAY, cause=error)
        finally:
            self._waiting -= 1
            if not answer.done():
                answer.set_result(found)
