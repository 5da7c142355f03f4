"""What goes wrong for a client of a relay."""

from __future__ import annotations

__all__ = ["ClientError"]


class ClientError(Exception):
    """The relay cannot be reached, or it refused a tunnel."""

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        proxy_status: str | None = None,
        challenges: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        "The relay's HTTP status, when it refused."
        self.proxy_status = proxy_status
        "Its Proxy-Status field, when it sent one (RFC 9209)."
        self.challenges = challenges
        "The lines of its Proxy-Authenticate field (RFC 9110 §11.7.1)."
