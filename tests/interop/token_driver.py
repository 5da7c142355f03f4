"""A driver of tokens with our own implementation: `python -m tests.interop.token_driver [WRONG]`.

WRONG is an answer that it gives to every verb in place of its own.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

from masque.privacypass import TokenType
from relay.conformance import DriverError, OwnTokens, TokenKeys

__all__ = ["obey"]


def encode(data: bytes) -> str:
    """Bytes as the protocol has them."""
    return base64.b64encode(data).decode("ascii")


async def obey(tokens: OwnTokens, verb: str, given: dict[str, Any]) -> dict[str, Any]:
    """Carry out a verb."""
    kind = TokenType(given.get("type", 1))
    keys = TokenKeys(base64.b64decode(given.get("private", "")), base64.b64decode(given.get("public", "")))
    if verb == "token_key":
        made = await tokens.make_key(kind)
        return {"private": encode(made.private), "public": encode(made.public)}
    if verb == "token_request":
        ticket, request = await tokens.request_token(kind, given["challenge"])
        return {"ticket": ticket, "request": encode(request)}
    if verb == "token_finish":
        return {"credentials": await tokens.finish_token(given["ticket"], base64.b64decode(given["response"]))}
    if verb == "token_answer":
        return {"response": encode(await tokens.answer_request(kind, base64.b64decode(given["request"]), keys))}
    return {"valid": await tokens.verify_token(kind, given["credentials"], keys)}


def main() -> None:
    """Answer line by line."""
    tokens = OwnTokens()
    print(json.dumps({"peer": "own", "version": "own 1", "features": ["tokens"]}), flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        try:
            ok = json.loads(sys.argv[1]) if sys.argv[1:] else asyncio.run(obey(tokens, given["verb"], given))
            answer = {"id": given["id"], "ok": ok}
        except DriverError as error:
            answer = {"id": given["id"], "error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
