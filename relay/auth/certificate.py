"""Client certificates (RFC 8446 §4.4.2): who the owner of a certificate is that the handshake has verified.

The engine checks the chain and the proof, before any request is read. Here a fingerprint becomes a principal.
"""

from __future__ import annotations

from relay.hooks import AuthScheme, Continue, ExchangeContext, Hooks, Principal, Replace, Verdict
from relay.settings import TlsSettings, parse_client_entry

__all__ = ["certificate_hooks"]


def certificate_hooks(settings: TlsSettings) -> Hooks:
    """Build the hook that admits the owners of the certificates that the settings name.

    It is asked after the schemes of HTTP: credentials in the request go before the certificate of its connection,
    and the certificate before `auth.open`.
    """
    if not settings.clients:
        return Hooks()
    entries = {mark: name for name, mark in map(parse_client_entry, settings.clients)}
    names = {mark: Principal(name, AuthScheme.CERTIFICATE) for mark, name in entries.items()}
    others = names.pop(None, None)

    async def authenticate(ctx: ExchangeContext) -> Verdict[Principal]:
        """Name the connection's principal, unless the request itself proved another."""
        if ctx.principal is not None and ctx.principal.scheme is not AuthScheme.OPEN:
            return Continue()
        mark = ctx.connection.certificate
        found = None if mark is None else names.get(mark, others)
        return Continue() if found is None else Replace(found)

    return Hooks(authenticate=authenticate)
