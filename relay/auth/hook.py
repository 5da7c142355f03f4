"""Authentication as a hook: the schemes of the settings, asked by the name that the client gives."""

from __future__ import annotations

from collections.abc import Sequence

from relay.auth.basic import BasicScheme
from relay.auth.credentials import find_credentials
from relay.auth.preshared import PresharedScheme
from relay.auth.schemes import Scheme
from relay.hooks import AuthScheme, Continue, ExchangeContext, Hooks, Principal, Replace, Verdict
from relay.settings import AuthSettings

__all__ = ["auth_hooks", "scheme_hooks"]

_ANYBODY = Principal("anybody", AuthScheme.OPEN)


def auth_hooks(settings: AuthSettings) -> Hooks:
    """Build the hook that admits whom the settings name, and with `open` everybody else too."""
    schemes: list[Scheme] = []
    if settings.preshared:
        schemes.append(PresharedScheme(settings.preshared, AuthScheme.PRESHARED))
        schemes.append(PresharedScheme(settings.preshared, AuthScheme.BEARER))
    if settings.basic:
        schemes.append(BasicScheme(settings.basic))
    return scheme_hooks(schemes, settings.realm, fallback=_ANYBODY if settings.open else None)


def scheme_hooks(schemes: Sequence[Scheme], realm: str, fallback: Principal | None = None) -> Hooks:
    """Build a hook from schemes, so that an application can bring its own.

    Bad credentials are no rejection yet: a later hook may know them. When none does, the chain answers with
    the challenges of all.

    Args:
        schemes: at most one for each name; their challenges keep this order.
        realm: the realm of the challenges.
        fallback: who a client without good credentials is; None for nobody.
    """
    by_name = {scheme.name: scheme for scheme in schemes}

    async def authenticate(ctx: ExchangeContext) -> Verdict[Principal]:
        """Check the request's credentials; a principal that an earlier hook has found stays."""
        if ctx.principal is not None:
            return Continue()
        credentials = find_credentials(ctx.head.fields)
        scheme = None if credentials is None else by_name.get(credentials.scheme)
        found = None if credentials is None or scheme is None else await scheme.verify(credentials.value)
        principal = fallback if found is None else found
        return Continue() if principal is None else Replace(principal)

    return Hooks(authenticate=authenticate, challenges=tuple(scheme.challenge(realm) for scheme in schemes))
