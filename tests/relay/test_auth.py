"""relay.auth: credentials in any form, keys, passwords, challenges (RFC 9110 §11, RFC 6750, RFC 7617)."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.head import Fields, RequestHead
from masque.target import Target
from relay.auth import (
    MAX_CREDENTIALS,
    BasicScheme,
    PresharedScheme,
    auth_hooks,
    basic,
    basic_entry,
    find_credentials,
    generate_key,
    parse_credentials,
    preshared_entry,
    scrypt_digest,
)
from relay.errors import FailureKind, RelayError
from relay.hooks import AuthScheme, ConnectionContext, ExchangeContext, HookChain, Principal, Reject, TunnelKind
from relay.settings import AuthSettings, ScryptCost, parse_basic_entry

pytestmark = pytest.mark.anyio

CHEAP = ScryptCost(n=1024, r=1, p=1)
KEY = "k" * 43


def basic_value(user: str, password: str) -> bytes:
    return base64.b64encode(f"{user}:{password}".encode())


@pytest.mark.parametrize(
    ("value", "scheme", "rest"),
    [
        (b"Preshared abc", "preshared", b"abc"),
        (b"BEARER   abc", "bearer", b"abc"),
        (b'PrivateToken token="a b", x=1', "privatetoken", b'token="a b", x=1'),
    ],
)
def test_credentials_split_at_the_first_spaces(value: bytes, scheme: str, rest: bytes) -> None:
    found = parse_credentials(value)
    assert found is not None
    assert (found.scheme, found.value) == (scheme, rest)
    assert rest.decode() not in repr(found)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Basic",
        b"Basic ",
        b" Basic x",
        b"Basic x ",
        b"Basic\tx",
        b"Basic \x00",
        b"Basic \xff",
        b"B@ x",
    ],
)
def test_other_forms_are_no_credentials(value: bytes) -> None:
    assert parse_credentials(value) is None


def test_credentials_are_bounded() -> None:
    longest = b"Basic " + b"x" * (MAX_CREDENTIALS - 6)
    assert parse_credentials(longest) is not None
    assert parse_credentials(longest + b"x") is None


@given(st.binary(max_size=80))
def test_any_value_parses_or_is_none(value: bytes) -> None:
    found = parse_credentials(value)
    if found is not None:
        assert value.lower().startswith(found.scheme.encode())
        assert value.endswith(found.value)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(b"proxy-authorization", b"A 1")], b"1"),
        ([(b"authorization", b"A 2")], b"2"),
        ([(b"authorization", b"A 2"), (b"proxy-authorization", b"A 1")], b"1"),
        ([(b"authorization", b"A 2"), (b"proxy-authorization", b"broken")], None),
        ([(b"proxy-authorization", b"A 1"), (b"proxy-authorization", b"A 1")], None),
        ([(b"authorization", b"A 1"), (b"authorization", b"A 1")], None),
        ([(b"x-authorization", b"A 1")], None),
        ([], None),
    ],
)
def test_which_field_counts(fields: list[tuple[bytes, bytes]], expected: bytes | None) -> None:
    found = find_credentials(tuple(fields))
    assert (None if found is None else found.value) == expected


async def test_preshared_keys_have_numbers() -> None:
    scheme = PresharedScheme([preshared_entry("first"), preshared_entry("second")])
    assert await scheme.verify(b"first") == Principal("preshared-1", AuthScheme.PRESHARED)
    assert await scheme.verify(b"second") == Principal("preshared-2", AuthScheme.PRESHARED)
    assert await scheme.verify(b"third") is None
    assert await scheme.verify(b"") is None


async def test_all_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = hmac.compare_digest

    def counting(left: bytes, right: bytes) -> bool:
        compared.append(right)
        return real(left, right)

    scheme = PresharedScheme([preshared_entry(key) for key in ("a", "b", "c")])
    monkeypatch.setattr("hmac.compare_digest", counting)
    for key in (b"a", b"c", b"none"):
        compared.clear()
        await scheme.verify(key)
        assert len(compared) == 3


async def test_basic_accepts_the_password_and_nothing_else() -> None:
    scheme = BasicScheme([basic_entry("ann", "se:cret", CHEAP), basic_entry("bob", "pässword", CHEAP)])
    assert await scheme.verify(basic_value("ann", "se:cret")) == Principal("basic-1", AuthScheme.BASIC)
    assert await scheme.verify(basic_value("bob", "pässword")) == Principal("basic-2", AuthScheme.BASIC)
    for wrong in (
        basic_value("ann", "pässword"),
        basic_value("carl", "se:cret"),
        basic_value("", ""),
        base64.b64encode(b"no colon"),
        b"not base64!",
        b"\xff",
    ):
        assert await scheme.verify(wrong) is None


@given(value=st.binary(max_size=60))
def test_basic_never_raises_for_what_a_peer_sends(value: bytes) -> None:
    scheme = BasicScheme([basic_entry("ann", "secret", CHEAP)])
    assert anyio.run(scheme.verify, value) is None


@pytest.fixture
def slow_calls(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    calls: list[bytes] = []
    real: Callable[[bytes, bytes, ScryptCost], bytes] = scrypt_digest

    def counting(password: bytes, salt: bytes, cost: ScryptCost) -> bytes:
        calls.append(salt)
        return real(password, salt, cost)

    monkeypatch.setattr(basic, "scrypt_digest", counting)
    return calls


async def test_a_good_password_is_paid_once_and_an_unknown_user_as_well(slow_calls: list[bytes]) -> None:
    scheme = BasicScheme([basic_entry("ann", "secret", CHEAP)])
    for _ in range(3):
        assert await scheme.verify(basic_value("ann", "secret")) is not None
    assert len(slow_calls) == 1
    for _ in range(2):
        assert await scheme.verify(basic_value("nobody", "secret")) is None
    assert len(slow_calls) == 3


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch, slow_calls: list[bytes]) -> None:
    monkeypatch.setattr(basic, "_REMEMBERED", 1)
    scheme = BasicScheme([basic_entry("ann", "a", CHEAP), basic_entry("bob", "b", CHEAP)])
    for user, password in (("ann", "a"), ("bob", "b"), ("ann", "a")):
        assert await scheme.verify(basic_value(user, password)) is not None
    assert len(slow_calls) == 3


async def test_waiting_checks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basic, "_WAITING", 1)
    scheme = BasicScheme([basic_entry("ann", "secret", ScryptCost(n=16384, r=8, p=1))])
    results: list[object] = []

    async def check(number: int) -> None:
        try:
            results.append(await scheme.verify(basic_value("ann", str(number))))
        except RelayError as error:
            results.append(error.failure.kind)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(check, number)
    assert results.count(None) == 3
    assert results.count(FailureKind.RATE_LIMITED) == 2


def test_generated_keys_are_long_and_differ() -> None:
    keys = {generate_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) == 43 for key in keys)


def test_no_key_looks_like_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["-" + "a" * 42, "--" + "b" * 41, "c" * 42 + "-"])
    monkeypatch.setattr("secrets.token_urlsafe", lambda _size: next(drawn))
    assert generate_key() == "c" * 42 + "-"


@pytest.mark.parametrize(
    ("user", "password"),
    [("a:b", "x"), ("", "x"), ("a\n", "x"), ("a", "x\x00"), ("a", ""), ("a" * 129, "x"), ("a", "\udcff")],
)
def test_basic_entries_refuse_what_the_scheme_cannot_carry(user: str, password: str) -> None:
    with pytest.raises(ValueError, match=r"user name|password"):
        basic_entry(user, password, CHEAP)


def test_the_entry_holds_no_password_and_new_salt_each_time() -> None:
    first, second = (basic_entry("ann", "swordfish", CHEAP) for _ in range(2))
    assert "swordfish" not in first
    assert parse_basic_entry(first).salt != parse_basic_entry(second).salt
    assert parse_basic_entry(first).cost == CHEAP


def exchange(fields: Fields) -> ExchangeContext:
    head = RequestHead(b"CONNECT", fields=fields)
    return ExchangeContext(ConnectionContext(0.0), TunnelKind.TCP, head, Target("www.example", 443))


def settings(**changes: object) -> AuthSettings:
    return AuthSettings.model_validate(
        {"preshared": [preshared_entry(KEY)], "basic": [basic_entry("ann", "secret", CHEAP)], **changes}
    )


@pytest.mark.parametrize(
    ("value", "principal"),
    [
        (f"Preshared {KEY}".encode(), Principal("preshared-1", AuthScheme.PRESHARED)),
        (f"bearer {KEY}".encode(), Principal("preshared-1", AuthScheme.BEARER)),
        (b"Basic " + basic_value("ann", "secret"), Principal("basic-1", AuthScheme.BASIC)),
        (b"Preshared wrong", None),
        (b"Digest x", None),
        (None, None),
    ],
)
async def test_the_hook_in_its_chain(value: bytes | None, principal: Principal | None) -> None:
    chain = HookChain([auth_hooks(settings())])
    fields = () if value is None else ((b"proxy-authorization", value),)
    found = await chain.authenticate(exchange(fields))
    if principal is not None:
        assert found == principal
        return
    assert isinstance(found, Reject)
    assert found.failure.kind is FailureKind.AUTHENTICATION_REQUIRED
    assert found.failure.challenges == (
        b'Preshared realm="masque-relay"',
        b'Bearer realm="masque-relay"',
        b'Basic realm="masque-relay", charset="UTF-8"',
    )


async def test_nothing_configured_admits_nobody() -> None:
    chain = HookChain([auth_hooks(AuthSettings())])
    found = await chain.authenticate(exchange(((b"proxy-authorization", b"Preshared x"),)))
    assert isinstance(found, Reject)
    assert found.failure.challenges == ()


async def test_open_admits_everybody_and_still_knows_keys() -> None:
    chain = HookChain([auth_hooks(settings(open=True))])
    assert await chain.authenticate(exchange(())) == Principal("anybody", AuthScheme.OPEN)
    known = await chain.authenticate(exchange(((b"authorization", f"Bearer {KEY}".encode()),)))
    assert known == Principal("preshared-1", AuthScheme.BEARER)


async def test_an_earlier_hooks_principal_stays() -> None:
    ctx = exchange(((b"authorization", f"Bearer {KEY}".encode()),))
    ctx.principal = Principal("mine", AuthScheme.APPLICATION)
    assert await HookChain([auth_hooks(settings())]).authenticate(ctx) == Principal("mine", AuthScheme.APPLICATION)
