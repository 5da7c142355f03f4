"""A peer that has tokens and no tunnels: its package makes and checks tokens, and our client opens the tunnels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interop.matrix.contestants import Peer, close_case, wire_options
from interop.matrix.puppet import Endpoint, Puppet, decode, encode
from interop.matrix.relays import find_log_fault
from masque.privacypass import TokenType
from masque.template import DEFAULT_UDP_TEMPLATE
from relay.conformance.case import Case, Stage
from relay.conformance.driver import DriverError
from relay.conformance.play import Outcome, Verdict, play
from relay.conformance.tokens import TokenKeys
from relay.conformance.wire_driver import WireDriver

__all__ = ["TokenPeer", "TokenPuppet"]

_ANSWER_SECONDS = 15.0
"Keys of type 2 take some time to find."


class TokenPuppet(Puppet):
    """A driver process with the token verbs of interop/peers/README.md. Satisfies `TokenDriver`."""

    async def make_key(self, token_type: TokenType) -> TokenKeys:
        """Make an issuer's key."""
        ok = await self._ask("token_key", type=token_type.value)
        return TokenKeys(decode("token_key", ok.get("private")), decode("token_key", ok.get("public")))

    async def request_token(self, token_type: TokenType, challenges: str) -> tuple[int, bytes]:
        """Answer the challenge of that type; returns a ticket and the TokenRequest."""
        ok = await self._ask("token_request", type=token_type.value, challenge=challenges)
        ticket = ok.get("ticket")
        if not isinstance(ticket, int):
            raise DriverError("token_request: `ticket` is no number")
        return ticket, decode("token_request", ok.get("request"))

    async def finish_token(self, ticket: int, response: bytes) -> str:
        """Make credentials of the TokenResponse."""
        ok = await self._ask("token_finish", ticket=ticket, response=encode(response))
        credentials = ok.get("credentials")
        if not isinstance(credentials, str) or not credentials.isascii():
            raise DriverError("token_finish: `credentials` is no text")
        return credentials

    async def answer_request(self, token_type: TokenType, request: bytes, keys: TokenKeys) -> bytes:
        """Answer a TokenRequest as an issuer does."""
        asked = {"request": encode(request), "private": encode(keys.private)}
        ok = await self._ask("token_answer", type=token_type.value, **asked)
        return decode("token_answer", ok.get("response"))

    async def verify_token(self, token_type: TokenType, credentials: str, keys: TokenKeys) -> bool:
        """Tell, as an origin, whether the key made the token."""
        by = {"private": encode(keys.private), "public": encode(keys.public)}
        ok = await self._ask("token_verify", type=token_type.value, credentials=credentials, **by)
        if not isinstance(ok.get("valid"), bool):
            raise DriverError("token_verify: `valid` is neither true nor false")
        return bool(ok["valid"])

    async def _ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        return await self._channel.ask(verb, _ANSWER_SECONDS, **arguments)


class TokenPeer(Peer):
    """An implementation of tokens that is not ours, with our relay."""

    @property
    def _is_open(self) -> bool:
        """Our client carries its credentials."""
        return False

    async def play(self, case: Case, folder: Path) -> Outcome:
        """Play a case with a driver process of its own, and with our client."""
        ground = self._ground
        async with ground.relays.lease(case, is_open=False) as lease:
            facts = ground.relays.describe(lease, self.spec.credentials, is_open=False, has_ipv6=ground.has_ipv6)
            endpoint = Endpoint(lease.running.url, str(ground.ca_file), DEFAULT_UDP_TEMPLATE)
            try:
                async with (
                    TokenPuppet(self._program(), endpoint, folder) as tokens,
                    WireDriver(wire_options(lease, ground)) as driver,
                ):
                    outcome = await play(case, Stage(driver, facts, ground.origins, tokens))
            except DriverError as error:
                outcome = Outcome(case, Verdict.FAIL, str(error))
            return close_case(lease, outcome, folder / "relay.log", find_log_fault)
