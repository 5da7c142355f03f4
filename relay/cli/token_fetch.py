"""What `relay token fetch` does: a challenge from a relay, a text or options, and tokens for it from an issuer."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from masque.errors import LocalMisuse, Malformed
from masque.privacypass import (
    MAX_CHALLENGE_BYTES,
    ChallengeOffer,
    TokenChallenge,
    TokenType,
    encode_base64url,
    encode_challenges,
    encode_token_challenge,
    parse_base64url,
)
from relay.cli.options import check_ca, issuer_authorization, relay_options, wall_clock
from relay.client import ClientError, TokenFile, TokenOffer, connect_relay, read_offers, relay_origin
from relay.issuance import IssuanceError, Issuer, issuer_authority, open_http

__all__ = ["fetch_tokens"]

_MAX_COUNT = 10_000
_BATCH = 20
_NOWHERE = ("token.invalid", 443)
"A target that no relay opens: the name does not exist (RFC 6761 §6.4)."
_FIELDS = ("proxy-authenticate:", "www-authenticate:")


def fetch_tokens(options: argparse.Namespace) -> int:
    """Get tokens, and print them or append them to a file.

    Args:
        options: the command line.

    Returns:
        0, or 1 when there are fewer than were asked for.

    Raises:
        ClientError: a mistake on the command line, no challenge for which tokens can be had, or a file that cannot
            be written.
        IssuanceError: the issuer gave none.
    """
    if not 1 <= options.count <= _MAX_COUNT:
        raise ClientError(f"--count: must be a number from 1 to {_MAX_COUNT}")
    check_ca(options.issuer_ca, "--issuer-ca")
    authorization = issuer_authorization(options.issuer_key_file, "--issuer-key-file")
    offer = _find_offer(options)
    url: str = options.issuer or f"https://{offer.challenge.issuer_name}"
    got, failure = asyncio.run(_fetch(offer, url, options.issuer_ca, authorization, options.count, options.out))
    number = f"{got}" if failure is None else f"{got} of the {options.count} tokens"
    where = "" if options.out is None else f", into {options.out}"
    why = "" if failure is None else f"; then {failure}"
    said = f"relay: {number} of type {offer.token_type.value} for {offer.challenge.issuer_name}{where}{why}"
    print(said, file=sys.stderr)
    return 0 if failure is None else 1


async def _fetch(
    offer: TokenOffer, url: str, ca_file: Path | None, authorization: str | None, count: int, out: Path | None
) -> tuple[int, IssuanceError | None]:
    """Get so many tokens, a few at a time, so that a failure does not cost those that came before it.

    Returns:
        How many there are, and why not more.
    """
    got = 0
    async with open_http(ca_file, authorization) as http:
        issuer = Issuer(http, url, wall_clock)
        while got < count:
            try:
                tokens = await issuer.fetch(offer.offer, min(_BATCH, count - got))
            except IssuanceError as error:
                if got == 0:
                    raise
                return got, error
            if out is not None:
                TokenFile(out).append(tokens)
            else:
                for token in tokens:
                    print(encode_base64url(token).decode("ascii"))
            got += len(tokens)
    return got, None


def _find_offer(options: argparse.Namespace) -> TokenOffer:
    """Read, ask for or build the challenge; the first of the wanted type is taken. Raises ClientError."""
    if options.relay is not None and options.challenge is not None:
        raise ClientError("--relay, --challenge: one of the two")
    is_built = options.relay is None and options.challenge is None
    if not is_built and (options.origin or options.context or options.issuer_name):
        raise ClientError("--origin, --context, --issuer-name: they make a challenge, and there is one already")
    origin = None
    if options.relay is not None:
        values, origin = asyncio.run(_ask_relay(options)), relay_origin(options.relay)
    elif options.challenge is not None:
        values = (_read_challenge(options.challenge),)
    else:
        values = (_build(options),)
    offers = read_offers(values, origin)
    found = next((offer for offer in offers if options.type in (None, offer.token_type)), None)
    if found is None:
        kind = "" if options.type is None else f" of type {options.type}"
        raise ClientError(f"there is no challenge of PrivateToken{kind} that can be answered")
    return found


async def _ask_relay(options: argparse.Namespace) -> tuple[bytes, ...]:
    """Ask a relay for a tunnel, without credentials, and return what its 407 says. Raises ClientError."""
    relay = relay_options(options)
    async with connect_relay(relay) as client:
        try:
            stream = await client.open_tcp(*_NOWHERE)
        except ClientError as error:
            if error.challenges:
                return error.challenges
            raise ClientError(f"the relay does not ask for a token: {error}") from None
        await stream.aclose()
    raise ClientError("the relay does not ask for a token: it opens tunnels to everybody")


def _read_challenge(text: str) -> bytes:
    """Read a challenge as a person has it: a field's line or value, or a TokenChallenge in base64url."""
    if text == "-":
        text = sys.stdin.read(MAX_CHALLENGE_BYTES + 1)
    text = text.strip()
    for name in _FIELDS:
        if text.lower().startswith(name):
            text = text[len(name) :].strip()
    try:
        value = text.encode("ascii")
    except UnicodeEncodeError:
        raise ClientError("--challenge: holds characters that no challenge has") from None
    try:
        return encode_challenges([ChallengeOffer(parse_base64url(value))])
    except (Malformed, LocalMisuse):
        return value


def _build(options: argparse.Namespace) -> bytes:
    """Make a challenge of the options."""
    if options.issuer is None:
        raise ClientError("--relay, --challenge or --issuer: say what the tokens are for")
    name = options.issuer_name or issuer_authority(options.issuer)
    try:
        context = bytes.fromhex(options.context)
    except ValueError:
        raise ClientError("--context: must be 64 hexadecimal digits") from None
    challenge = TokenChallenge(options.type or TokenType.BLIND_RSA_2048, name, context, tuple(options.origin))
    try:
        return encode_challenges([ChallengeOffer(encode_token_challenge(challenge))])
    except LocalMisuse as error:
        raise ClientError(f"--issuer-name, --origin, --context: {error.detail}") from None
