"""Tokens of Privacy Pass: two implementations understand each other, and a relay admits by what they make.

Each case is played with tokens of both types (RFC 9578 §8.2), one after the other.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from masque.privacypass import (
    ChallengeOffer,
    TokenChallenge,
    TokenType,
    encode_challenges,
    encode_token_challenge,
    parse_authorization,
)
from relay.conformance.case import CaseFailed, CaseList, Need, Stage
from relay.conformance.driver import Answer, Feature, Kind
from relay.conformance.tokens import OwnTokens, TokenDriver, TokenKeys

__all__ = ["TOKEN_CASES"]

TOKEN_CASES = CaseList(Feature.TOKENS)
"The cases of tokens."

_TYPES = (TokenType.BLIND_RSA_2048, TokenType.VOPRF_P384)


def _peer(stage: Stage) -> TokenDriver:
    if stage.tokens is None:
        raise CaseFailed("no implementation of tokens")
    return stage.tokens


def _challenges(keys: Mapping[TokenType, TokenKeys]) -> str:
    """A field's value with a challenge of each type, after one of another scheme, as a relay has it."""
    origins = ("relay.example", "other.example:8443")
    offers = []
    for token_type, key in keys.items():
        challenge = TokenChallenge(token_type, "issuer.example", b"\7" * 32, origins)
        offers.append(ChallengeOffer(encode_token_challenge(challenge), key.public))
    return 'Preshared realm="relay", ' + encode_challenges(offers).decode("ascii")


async def _obtain(
    client: TokenDriver, issuer: TokenDriver, token_type: TokenType, challenges: str, keys: TokenKeys
) -> str:
    """Credentials for a challenge, by the client of one implementation and the issuer of another."""
    ticket, request = await client.request_token(token_type, challenges)
    return await client.finish_token(ticket, await issuer.answer_request(token_type, request, keys))


async def _verified(stage: Stage, token_type: TokenType, credentials: str, keys: TokenKeys) -> None:
    """Both origins take good credentials and no others."""
    kind = f"type {token_type.value}"
    for whose, origin in (("its", _peer(stage)), ("our", OwnTokens())):
        is_taken = await origin.verify_token(token_type, credentials, keys)
        stage.must(is_taken, f"{whose} origin refused a good token of {kind}")
        is_taken = await origin.verify_token(token_type, _change(credentials), keys)
        stage.must(not is_taken, f"{whose} origin took a changed token of {kind}")


def _change(credentials: str) -> str:
    """The same credentials, with the last byte of the authenticator changed."""
    token = parse_authorization(credentials.encode("ascii")) or b""
    changed = token[:-1] + bytes((token[-1] ^ 1,))
    return f'PrivateToken token="{base64.urlsafe_b64encode(changed).decode("ascii")}"'


@TOKEN_CASES.add("token-our-issuer", "RFC 9578 §5, §6")
async def _our_issuer(stage: Stage) -> None:
    """Its client reads our challenges, our issuer answers it; its origin and ours take the tokens."""
    peer, own = _peer(stage), OwnTokens()
    keys = {token_type: await own.make_key(token_type) for token_type in _TYPES}
    for token_type in _TYPES:
        credentials = await _obtain(peer, own, token_type, _challenges(keys), keys[token_type])
        await _verified(stage, token_type, credentials, keys[token_type])


@TOKEN_CASES.add("token-its-issuer", "RFC 9578 §5, §6")
async def _its_issuer(stage: Stage) -> None:
    """Its issuer answers our client and its own, with a key that it made; our origin and its take the tokens."""
    peer, own = _peer(stage), OwnTokens()
    keys = {token_type: await peer.make_key(token_type) for token_type in _TYPES}
    for token_type in _TYPES:
        for client in (peer, own):
            credentials = await _obtain(client, peer, token_type, _challenges(keys), keys[token_type])
            await _verified(stage, token_type, credentials, keys[token_type])


async def _challenged(stage: Stage) -> str:
    """What a relay's 407 asks for."""
    return _offered(stage, await stage.ask(Kind.TCP, headers=()))


def _offered(stage: Stage, answer: Answer) -> str:
    stage.refused(answer, (407,), "http_request_denied")
    fields = [value for name, value in answer.headers if name == "proxy-authenticate"]
    stage.must(any("PrivateToken" in value for value in fields), "407 without a challenge of PrivateToken")
    return ", ".join(fields)


async def _show(stage: Stage, credentials: str, field: str = "proxy-authorization") -> Answer:
    return await stage.ask(Kind.TCP, headers=((field, credentials),))


@TOKEN_CASES.add("token-admitted", "RFC 9577 §2.2.2", Need.TCP, Need.TOKENS)
async def _admitted(stage: Stage) -> None:
    """Its client and issuer make tokens for the relay's challenge: each is admitted, once."""
    peer = _peer(stage)
    await stage.driver.connect()
    for token_type, keys in stage.server.token_keys.items():
        for field in ("proxy-authorization", "authorization"):
            credentials = await _obtain(peer, peer, token_type, await _challenged(stage), keys)
            answer = await _show(stage, credentials, field)
            stage.must(answer.tunnel is not None, f"type {token_type.value} refused: {stage.describe(answer)}")
            _offered(stage, await _show(stage, credentials, field))


@TOKEN_CASES.add("token-refused", "RFC 9577 §2.2.2", Need.TCP, Need.TOKENS)
async def _refused(stage: Stage) -> None:
    """A changed token, one of another key and one for another challenge are answered with 407 and a challenge."""
    peer = _peer(stage)
    await stage.driver.connect()
    for token_type, keys in stage.server.token_keys.items():
        other = await peer.make_key(token_type)
        good = await _obtain(peer, peer, token_type, await _challenged(stage), keys)
        elsewhere = await _obtain(peer, peer, token_type, _challenges({token_type: keys}), keys)
        of_other_key = await _obtain(peer, peer, token_type, _challenges({token_type: other}), other)
        for credentials in (_change(good), elsewhere, of_other_key):
            _offered(stage, await _show(stage, credentials))
        answer = await _show(stage, good)
        stage.must(answer.tunnel is not None, f"the good token was refused: {stage.describe(answer)}")
