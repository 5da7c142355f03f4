"""What the tests of tokens share: an issuer with keys of both types, and an HTTPS server for its directory."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import relay.settings
from masque.head import RequestHead
from masque.privacypass import (
    NONCE_SIZE,
    ChallengeOffer,
    DirectoryKey,
    IssuerDirectory,
    Token,
    TokenType,
    VoprfPrivateKey,
    challenge_digest,
    encode_credentials,
    encode_directory,
    encode_spki,
    encode_token,
    parse_blind_rsa_key,
    parse_challenges,
)
from masque.privacypass import token_input as make_input
from masque.target import Target
from relay.auth import TokenGate, TokenParts, prepare_tokens
from relay.hooks import ConnectionContext, ExchangeContext, HookChain, Principal, TunnelKind
from relay.outcome import http_status
from relay.telemetry import CounterMetrics
from tests.masque.privacypass_vectors import rsa_key
from tests.relay.spent.rig import NOW, Clock

__all__ = [
    "NAME",
    "SEED",
    "Door",
    "HttpsServer",
    "RsaIssuer",
    "credentials",
    "directory",
    "exchange",
    "https_server",
    "new_issuer",
    "open_gate",
    "pem",
    "settings",
    "vector_issuer",
    "voprf_token",
]

NAME = "issuer.example"
SEED = b"\x07" * 48
"The seed of the issuer's key of type 1."


@dataclass(frozen=True)
class RsaIssuer:
    """A key of type 2 that signs without blinds: what comes of it are tokens like any others, and soon."""

    private: rsa.RSAPrivateKey
    spki: bytes

    def token(self, challenge: bytes, nonce: bytes | None = None) -> Token:
        """Make a token for a challenge."""
        public = parse_blind_rsa_key(self.spki)
        used = os.urandom(NONCE_SIZE) if nonce is None else nonce
        digest = challenge_digest(challenge)
        message = make_input(TokenType.BLIND_RSA_2048, used, digest, public.key_id)
        signature = self.private.sign(message, padding.PSS(padding.MGF1(hashes.SHA384()), 48), hashes.SHA384())
        return Token(TokenType.BLIND_RSA_2048, used, digest, public.key_id, signature)


def _issuer(private: rsa.RSAPrivateKey) -> RsaIssuer:
    numbers = private.public_key().public_numbers()
    return RsaIssuer(private, encode_spki(numbers.n, numbers.e))


@cache
def vector_issuer() -> RsaIssuer:
    """The issuer with the key of RFC 9578's vectors."""
    return _issuer(rsa_key().numbers.private_key())


@cache
def new_issuer(number: int) -> RsaIssuer:
    """An issuer with a key of its own, the same for each number."""
    return _issuer(rsa.generate_private_key(65537, 2048))


def voprf_token(challenge: bytes, seed: bytes = SEED) -> Token:
    """Make a token of type 1 for a challenge."""
    key = VoprfPrivateKey(seed)
    nonce, digest = os.urandom(NONCE_SIZE), challenge_digest(challenge)
    message = make_input(TokenType.VOPRF_P384, nonce, digest, key.key_id)
    authenticator = key._evaluator.evaluate_known_input(message)
    return Token(TokenType.VOPRF_P384, nonce, digest, key.key_id, authenticator)


def pem(spki: bytes) -> bytes:
    """Write a public key as PEM."""
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(spki) + b"-----END PUBLIC KEY-----\n"


def directory(*issuers: RsaIssuer, not_before: int | None = None) -> bytes:
    """Write the directory of these keys; `not_before` is that of the first."""
    keys = [DirectoryKey(2, issuer.spki, None if index else not_before) for index, issuer in enumerate(issuers)]
    return encode_directory(IssuerDirectory("/token-request", tuple(keys)))


def settings(folder: Path, **changes: object) -> relay.settings.TokenSettings:
    """Settings with one issuer of both types, its keys in files, and a store in memory."""
    (folder / "key.pem").write_bytes(pem(vector_issuer().spki))
    (folder / "seed").write_bytes(SEED)
    issuer = {"name": NAME, "keys": [folder / "key.pem", folder / "seed"], "types": [2, 1]}
    return relay.settings.TokenSettings.model_validate(
        {"issuers": [issuer], "origins": ["relay.example"], "store": {"kind": "memory"}, **changes}
    )


def credentials(token: Token | bytes) -> bytes:
    """Write a token as a field value."""
    return encode_credentials(token if isinstance(token, bytes) else encode_token(token))


def exchange(
    value: bytes | None, connection: ConnectionContext | None = None, name: bytes = b"proxy-authorization"
) -> ExchangeContext:
    """An exchange with this credentials field."""
    fields = () if value is None else ((name, value),)
    head = RequestHead(b"CONNECT", authority=b"target.example:443", fields=fields)
    return ExchangeContext(connection or ConnectionContext(0.0), TunnelKind.TCP, head, Target("target.example", 443))


@dataclass
class Door:
    """A gate that runs, and what is around it."""

    gate: TokenGate
    parts: TokenParts
    chain: HookChain
    metrics: CounterMetrics
    clock: Clock

    def offers(self) -> list[ChallengeOffer]:
        """Today's challenges as a client reads them."""
        return parse_challenges(self.chain.challenges)

    def challenge(self, index: int = 0) -> bytes:
        """One of today's challenges."""
        return self.offers()[index].challenge

    async def ask(
        self, token: Token | bytes | None, connection: ConnectionContext | None = None, name: bytes = b"authorization"
    ) -> int:
        """Ask with a token, or with other credentials; returns the status that comes of it."""
        value = credentials(token) if isinstance(token, Token) else token
        found = await self.chain.authenticate(exchange(value, connection, name))
        return 200 if isinstance(found, Principal) else http_status(found.failure)


@asynccontextmanager
async def open_gate(token_settings: relay.settings.TokenSettings) -> AsyncIterator[Door]:
    """Run a gate for the time of a context."""
    clock, metrics = Clock(NOW), CounterMetrics()
    parts = prepare_tokens(token_settings, clock)
    assert parts is not None
    gate = TokenGate(parts, metrics)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(gate.run())
        await asyncio.sleep(0)
        try:
            yield Door(gate, parts, HookChain([gate.hooks], metrics), metrics, clock)
        finally:
            running.cancel()


@dataclass
class HttpsServer:
    """An HTTPS server that answers as it is told, one request a connection."""

    url: str
    answer: Callable[[str], bytes | None]
    "From a request's path to the whole response; None lets the client wait."
    paths: list[str] = field(default_factory=list)
    "What was asked for."

    def serve(self, content: bytes, status: str = "200 OK", **headers: str) -> None:
        """Answer all requests with this content."""
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n{lines}\r\n"
        self.answer = lambda path: head.encode() + content


@asynccontextmanager
async def https_server(certificates: Path, port: int = 0) -> AsyncIterator[HttpsServer]:
    """Run a server on the loopback with the tests' certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    server = HttpsServer("", lambda path: None)
    forever = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            server.paths.append(head.split()[1].decode())
            answer = server.answer(server.paths[-1])
            if answer is None:
                await forever.wait()
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", port, ssl=context)
    server.url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        forever.set()
        listening.close()
        await listening.wait_closed()
