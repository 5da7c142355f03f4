"""A relay that takes tokens, and clients that have some."""

from __future__ import annotations

import json
import os
from pathlib import Path

from masque.connect import connect_head
from masque.connect_udp import connect_udp_head
from masque.privacypass import (
    ENTROPY_SIZE,
    SALT_SIZE,
    BlindRsaPublicKey,
    ChallengeOffer,
    Token,
    VoprfPrivateKey,
    begin,
    draw_blinds,
    issue,
    parse_challenges,
    parse_token_challenge,
    parse_token_key,
)
from masque.template import DEFAULT_UDP_TEMPLATE, Template
from relay.conformance.wire import WireClient, WireStream
from tests.masque.privacypass_vectors import rsa_key
from tests.relay.private_token.rig import NAME, SEED, credentials, pem, vector_issuer

__all__ = ["ask", "issued", "offers", "offers_of", "token_settings"]


def token_settings(folder: Path, issuer: dict[str, object] | None = None, **more: str) -> dict[str, str]:
    """A relay that takes tokens of one issuer, and no keys; spent tokens are in memory."""
    (folder / "key.pem").write_bytes(pem(vector_issuer().spki))
    (folder / "seed").write_bytes(SEED)
    files = {"keys": [str(folder / "key.pem"), str(folder / "seed")], "types": [2, 1]}
    return {
        "auth.preshared": "[]",
        "tokens.issuers": json.dumps([{"name": NAME, **(files if issuer is None else issuer)}]),
        "tokens.store.kind": "memory",
        **{f"tokens.{name.replace('__', '.')}": value for name, value in more.items()},
    }


async def ask(client: WireClient, port: int, token: Token | bytes | None = None, *, udp: bool = False) -> WireStream:
    """Ask for a tunnel with a token, or with any field value; returns the answer."""
    value = credentials(token) if isinstance(token, Token) else token
    fields = () if value is None else ((b"proxy-authorization", value),)
    if udp:
        head = connect_udp_head(Template(DEFAULT_UDP_TEMPLATE), b"relay.example", "127.0.0.1", port, fields)
    else:
        head = connect_head("127.0.0.1", port, fields)
    return await client.answered(client.request(head))


async def offers(client: WireClient) -> list[ChallengeOffer]:
    """The challenges of a 407."""
    stream = await ask(client, 1)
    assert stream.status == 407
    return offers_of(stream)


def offers_of(stream: WireStream) -> list[ChallengeOffer]:
    assert stream.response is not None
    return parse_challenges(value for name, value in stream.response.fields if name == b"proxy-authenticate")


def issued(offer: ChallengeOffer) -> Token:
    """A token as a client gets it: blinded, signed, finished."""
    token_type = parse_token_challenge(offer.challenge).known_type
    assert token_type is not None
    assert offer.token_key is not None
    key = parse_token_key(token_type, offer.token_key)
    entropy = os.urandom(ENTROPY_SIZE + SALT_SIZE)
    blinds = draw_blinds(key, entropy) if isinstance(key, BlindRsaPublicKey) else None
    pending = begin(offer.challenge, key, os.urandom(32), blinds)
    return pending.finish(issue(pending.request, [rsa_key(), VoprfPrivateKey(SEED)], os.urandom(ENTROPY_SIZE)))
