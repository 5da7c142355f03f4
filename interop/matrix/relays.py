"""Our relay as a real process, with the settings that a case asks for, and what cases may know of it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
from base64 import b64encode
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from interop.matrix.names import MISSING_NAME, ORIGIN_NAME
from interop.matrix.peers import Credentials
from interop.matrix.pool import Lease, Pool, Running
from interop.matrix.process import Daemon, Program
from interop.matrix.workshop import clean_environ
from masque.privacypass import TokenType, parse_base64url
from relay.auth import basic_entry, generate_key, preshared_entry
from relay.conformance.case import Case, Need, Server
from relay.conformance.driver import Headers
from relay.conformance.tokens import TokenKeys
from relay.issuance import make_key_files
from relay.quic.engine import EngineName

__all__ = ["Relays", "find_log_fault"]

_HOST, _HOST6 = "127.0.0.1", "::1"
_FORBIDDEN = "127.0.0.66"
"Denied although its network is allowed; a relay that let it through would reach nobody but this machine."
_START_SECONDS = 20.0
_USER = "interop"
_ISSUER = "issuer.example"
_GRAVE = ("error", "critical")


class Relays:
    """Starts relays, and shares them between cases with equal settings."""

    def __init__(self, pool: Pool, engine: EngineName, certificates: Path, logs: Path, resolver: str) -> None:
        """Make keys; starts nothing.

        Args:
            pool: where relays wait for the next case.
            engine: their QUIC library.
            certificates: the folder with server.pem, server.key and ca.pem.
            logs: where their logs go.
            resolver: the DNS server that knows the origins, as `address:port`.
        """
        self._pool = pool
        self._engine = engine
        self._certificates = certificates
        self._logs = logs
        self._resolver = resolver
        self._key, self._password = generate_key(), generate_key()
        self._basic_entry = basic_entry(_USER, self._password)
        self._token_keys: dict[TokenType, TokenKeys] = {}
        self._numbers = count(1)

    def lease(self, case: Case, *, is_open: bool) -> AbstractAsyncContextManager[Lease]:
        """Have a relay for one case.

        Args:
            case: whose settings it gets; one that makes it drain has it for itself and last.
            is_open: it admits everybody, for clients that cannot carry credentials.
        """
        tokens = self._token_settings() if Need.TOKENS in case.needs else {}
        settings = self._settings({**case.settings, **tokens}, is_open=is_open)
        own = secrets.token_hex(8) if Need.DRAIN in case.needs else ""
        return self._pool.lease((own, *sorted(settings.items())), lambda: self._start(settings))

    def describe(self, lease: Lease, credentials: Credentials, *, is_open: bool, has_ipv6: bool) -> Server:
        """What a case may know of the relay.

        Args:
            lease: the relay.
            credentials: which kind the client can carry.
            is_open: as in `lease`.
            has_ipv6: this machine has a loopback address of IPv6.
        """

        async def drain() -> None:
            lease.is_spent = True
            lease.running.daemon.signal(signal.SIGTERM)

        good, wrong = self._fields(credentials)
        return Server(
            offers=self.offers(is_open=is_open, has_ipv6=has_ipv6),
            host=_HOST,
            host6=_HOST6,
            name=ORIGIN_NAME,
            missing_name=MISSING_NAME,
            forbidden=(_FORBIDDEN, 443),
            credentials=() if is_open else good,
            wrong_credentials=wrong,
            drain=drain,
            token_keys=dict(self._token_keys),
            is_strict=True,
        )

    @staticmethod
    def offers(*, is_open: bool, has_ipv6: bool) -> frozenset[Need]:
        """What our relay has; arguments as in `describe`."""
        absent = {Need.AUTH: is_open, Need.IPV6: not has_ipv6, Need.TOKENS: is_open}
        return frozenset(need for need in Need if not absent.get(need, False))

    def _fields(self, credentials: Credentials) -> tuple[Headers, Headers]:
        """Field lines with good and with wrong credentials."""
        if credentials is Credentials.BASIC:
            pairs = [f"{_USER}:{password}" for password in (self._password, self._password + "x")]
            values = [f"Basic {b64encode(pair.encode()).decode()}" for pair in pairs]
        else:
            values = [f"Preshared {self._key}", f"Preshared {generate_key()}"]
        good, wrong = ((("proxy-authorization", value),) for value in values)
        return good, wrong

    def _token_settings(self) -> dict[str, str]:
        """An issuer with a key of each type, which are made once."""
        files = []
        for token_type in TokenType:
            private = self._certificates / f"issuer-{token_type.value}.key"
            public = private.with_suffix(".pub")
            if token_type not in self._token_keys:
                key = make_key_files(token_type, private, public)
                self._token_keys[token_type] = TokenKeys(_private_part(private), key.encoded)
            files.append(str(public if token_type is TokenType.BLIND_RSA_2048 else private))
        issuer = {"name": _ISSUER, "keys": files, "types": [token_type.value for token_type in TokenType]}
        return {"tokens.issuers": json.dumps([issuer]), "tokens.store.kind": "memory"}

    def _settings(self, more: Mapping[str, str], *, is_open: bool) -> dict[str, str]:
        admitted = {
            "auth.preshared": json.dumps([preshared_entry(self._key)]),
            "auth.basic": json.dumps([self._basic_entry]),
        }
        return {
            "listen.host": _HOST,
            "listen.port": "0",
            "tls.certificate": str(self._certificates / "server.pem"),
            "tls.private_key": str(self._certificates / "server.key"),
            "quic.engine": self._engine.value,
            "policy.allow": '["127.0.0.0/8", "::1/128"]',
            "policy.deny": f'["{_FORBIDDEN}/32"]',
            "resolver.upstreams": json.dumps([self._resolver]),
            "telemetry.level": "debug",
            "telemetry.format": "json",
            **({"auth.open": "true"} if is_open else admitted),
            **more,
        }

    async def _start(self, settings: Mapping[str, str]) -> Running:
        command = [sys.executable, "-m", "relay", "serve"]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        number = next(self._numbers)
        daemon = Daemon("the relay", Program(command, self._logs, clean_environ(os.environ)), self._log(number))
        try:
            await daemon.start()
            ready = await daemon.find(r"serving HTTP/3 on \S+:(\d+) ", _START_SECONDS)
        except BaseException:
            await daemon.stop()
            raise
        return Running(daemon, _HOST, int(ready[1]))

    def _log(self, number: int) -> Path:
        return self._logs / f"relay-{number}.log"


def _private_part(file: Path) -> bytes:
    """The private key in the form that drivers read: PKCS #8, or a seed."""
    text = file.read_bytes()
    if b"PRIVATE KEY" in text:
        key = load_pem_private_key(text, None)
        return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return parse_base64url(text.splitlines()[-1])


def find_log_fault(lease: Lease) -> str:
    """Look for what a relay must not do whatever a client does: end, or log an error.

    Args:
        lease: the relay.

    Returns:
        What it did, or nothing.
    """
    for line in lease.read_log().decode(errors="replace").splitlines():
        if line.startswith("Traceback"):
            return "the relay printed a traceback"
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("level") in _GRAVE:
            kind = record.get("exception_type", "")
            return f"the relay logged {record.get('event')}" + (f" ({kind})" if kind else "")
    daemon = lease.running.daemon
    return "the relay ended" if daemon.has_ended and not lease.is_spent else ""
