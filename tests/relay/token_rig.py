"""Tokens for tests: made at once, issued over real HTTPS, and a relay's hooks that admit by them."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from masque.privacypass import (
    ENTROPY_SIZE,
    NONCE_SIZE,
    SALT_SIZE,
    BlindRsaPrivateKey,
    ChallengeOffer,
    IssuerKey,
    Refusal,
    Token,
    TokenChallenge,
    TokenType,
    VerifyingKey,
    begin,
    challenge_digest,
    draw_blinds,
    encode_challenges,
    encode_token,
    encode_token_challenge,
    issue,
    parse_credentials,
    read_token,
    verify_token,
)
from relay.auth import find_credentials
from relay.errors import Failure, FailureKind, Side
from relay.hooks import AuthScheme, ExchangeContext, Hooks, Principal, Reject, Replace, Verdict
from relay.issuer import DevelopmentIssuer, serve_issuer
from tests.masque.privacypass_vectors import rsa_key, voprf_key

__all__ = ["ISSUER", "TokenOrigin", "challenge", "make_token", "running_issuer", "verifying"]

ISSUER = "issuer.example"
"The issuer's name in these tests."


def challenge(token_type: TokenType = TokenType.BLIND_RSA_2048, *, context: bytes = b"", origin: str = "") -> bytes:
    """A challenge of the tests' issuer."""
    return encode_token_challenge(TokenChallenge(token_type, ISSUER, context, (origin,) if origin else ()))


def make_token(wanted: bytes, key: IssuerKey | None = None) -> bytes:
    """A token for a challenge, issued without a network."""
    own = key or (rsa_key() if wanted[:2] == b"\0\2" else voprf_key())
    blinds = None
    if isinstance(own, BlindRsaPrivateKey):
        blinds = draw_blinds(own.public, secrets.token_bytes(ENTROPY_SIZE + SALT_SIZE))
    pending = begin(wanted, own.public, secrets.token_bytes(NONCE_SIZE), blinds)
    return encode_token(pending.finish(issue(pending.request, [own], secrets.token_bytes(ENTROPY_SIZE))))


def verifying(key: IssuerKey) -> VerifyingKey:
    """What an origin verifies by: the public key, or for type 1 the private one."""
    return key.public if isinstance(key, BlindRsaPrivateKey) else key


@dataclass
class TokenOrigin:
    """Hooks that admit by tokens: each so many tunnels, or for `connection` all of one connection."""

    wanted: Sequence[bytes]
    "The challenges, the preferred one first."
    admits: int | str = 1
    keys: Sequence[IssuerKey] = field(default_factory=lambda: [rsa_key(), voprf_key()])
    is_careless: bool = False
    "Admits by tokens whose authenticator is wrong."
    requests: list[bytes | None] = field(default_factory=list)
    "The nonce that each request brought, or None."
    uses: Counter[bytes] = field(default_factory=Counter)
    "How many tunnels were admitted by each token, by nonce."

    @property
    def spent(self) -> int:
        """How many tokens were spent."""
        return len(self.uses)

    @property
    def hooks(self) -> Hooks:
        """For a relay."""
        return Hooks(authenticate=self._authenticate)

    async def _authenticate(self, ctx: ExchangeContext) -> Verdict[Principal]:
        found = find_credentials(ctx.head.fields)
        is_token = found is not None and found.scheme == "privatetoken"
        token = read_token(parse_credentials(found.value)) if found is not None and is_token else None
        self.requests.append(token.nonce if isinstance(token, Token) else None)
        admitted = Replace(Principal("token", AuthScheme.APPLICATION))
        if self.admits == "connection" and ctx.connection.get(TokenOrigin) is self:
            return admitted
        if not isinstance(token, Token) or not self._is_good(token):
            return self._refuse()
        if self.uses[token.nonce] >= (self.admits if isinstance(self.admits, int) else 1):
            return self._refuse()
        self.uses[token.nonce] += 1
        ctx.connection.put(self)
        return admitted

    def _refuse(self) -> Reject:
        offered = [ChallengeOffer(data, self._key(data).public.encoded) for data in self.wanted]
        challenges = (encode_challenges(offered),)
        return Reject(Failure(FailureKind.AUTHENTICATION_REQUIRED, Side.CLIENT, challenges=challenges))

    def _is_good(self, token: Token) -> bool:
        accepted = {}
        for data in self.wanted:
            key = verifying(self._key(data))
            accepted[challenge_digest(data)] = {key.key_id: key}
        refusal = verify_token(token, accepted)
        return refusal is None or (self.is_careless and refusal is Refusal.BAD_AUTHENTICATOR)

    def _key(self, data: bytes) -> IssuerKey:
        return next(key for key in self.keys if key.public.token_type.to_bytes(2, "big") == data[:2])


@asynccontextmanager
async def running_issuer(folder: Path, keys: Sequence[IssuerKey], preshared: str | None = None) -> AsyncIterator[str]:
    """A development issuer with the certificate of `folder`; yields its URL."""
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    issuer = DevelopmentIssuer(keys, preshared)
    files = (folder / "server.pem", folder / "server.key")
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(
            serve_issuer(issuer, ("127.0.0.1", 0), files, lambda _host, port: ready.set_result(port))
        )
        yield f"https://127.0.0.1:{await ready}"
        serving.cancel()
