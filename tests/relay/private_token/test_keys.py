"""Files of keys, and the ring of an issuer's live keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.privacypass import (
    DirectoryKey,
    IssuerDirectory,
    TokenType,
    VoprfPrivateKey,
    encode_base64url,
    parse_blind_rsa_key,
    parse_directory,
)
from relay.auth.private_token.key_file import SeedKey, parse_key_file
from relay.auth.private_token.key_ring import KeyRing
from relay.settings import IssuerSettings, SettingsError
from tests.relay.private_token.rig import NAME, SEED, directory, new_issuer, pem, vector_issuer

FIRST, SECOND = vector_issuer().spki, new_issuer(1).spki
RSA, VOPRF = TokenType.BLIND_RSA_2048, TokenType.VOPRF_P384


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (FIRST, [FIRST]),
        (pem(FIRST), [FIRST]),
        (b"a comment\n" + pem(SECOND) + b"\r\n" + pem(FIRST).replace(b"\n", b"\r\n"), [SECOND, FIRST]),
        (b"# keys\n" + encode_base64url(FIRST) + b"\n\n " + encode_base64url(SECOND) + b"\r\n", [FIRST, SECOND]),
    ],
    ids=["der", "pem", "pem-two", "lines"],
)
def test_public_keys(data: bytes, expected: list[bytes]) -> None:
    assert [key.encoded for key in parse_key_file(data)] == expected


@pytest.mark.parametrize("seed", [b"\x80" * 32, b"\x80" * 48])
def test_seeds(seed: bytes) -> None:
    for data in (seed, encode_base64url(seed), b"# the seed\n" + encode_base64url(seed).rstrip(b"=")):
        (key,) = parse_key_file(data)
        assert isinstance(key, SeedKey)
        assert key.encoded == VoprfPrivateKey(seed).public.encoded
        assert seed.hex() not in repr(key)
        assert repr(seed)[2:-1] not in repr(key)


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"", "holds a token key that is no SubjectPublicKeyInfo"),
        (b"\n# nothing\n", "holds no key"),
        (b"not base64!", "holds a line that is no base64url"),
        (pem(FIRST).replace(b"PUBLIC", b"PRIVATE"), "holds a PEM block that is no PUBLIC KEY"),
        (b"-----BEGIN PUBLIC KEY-----\nA\n-----END PUBLIC KEY-----\n", "holds a PEM block that is no base64"),
        (pem(FIRST)[:-10], "holds no key"),
        (FIRST[:-1], "holds a token key that is"),
        (VoprfPrivateKey(SEED).public.encoded, "holds a public key of type 1"),
        (bytes(65_537), "is longer than 65536 bytes"),
        (encode_base64url(SEED) * 1 + b"\n" + (encode_base64url(SEED) + b"\n") * 64, "holds more than 64 keys"),
    ],
)
def test_files_that_hold_something_else(data: bytes, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        parse_key_file(data)


@given(st.one_of(st.binary(max_size=400), st.text(max_size=200).map(str.encode), st.binary().map(pem)))
def test_any_file_holds_keys_or_says_what_is_wrong(data: bytes) -> None:
    try:
        found = len(parse_key_file(data))
    except ValueError as error:
        found = str(error).startswith(("holds ", "is longer"))
    assert found


def ring(tmp_path: Path, *files: bytes, types: tuple[int, ...] = (2,), **more: object) -> KeyRing:
    """A ring of these files, read."""
    paths = [tmp_path / f"key-{number}" for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    made = KeyRing(0, IssuerSettings.model_validate({"name": NAME, "keys": paths, "types": types, **more}))
    made.use_files(made.load_files())
    return made


def test_all_keys_are_live_and_the_first_is_offered(tmp_path: Path) -> None:
    keys = ring(tmp_path, pem(SECOND), pem(FIRST), SEED, types=(1, 2))
    assert list(keys.live(RSA)) == [parse_blind_rsa_key(SECOND).key_id, parse_blind_rsa_key(FIRST).key_id]
    assert list(keys.live(VOPRF)) == [VoprfPrivateKey(SEED).key_id]
    assert keys.preferred(RSA, 0.0) == SECOND
    assert keys.preferred(VOPRF, 0.0) == VoprfPrivateKey(SEED).public.encoded
    assert keys.types == (VOPRF, RSA)
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("files", "types", "wrong"),
    [
        (
            [SEED],
            (2,),
            r"^tokens\.issuers\[0\]\.keys\[0\]: .*key-0 holds a key of a type that ",
        ),
        ([FIRST], (2, 1), r"^tokens\.issuers\[0\]\.types: names 1, and no file has a key of it$"),
        ([FIRST, b"?"], (2,), r"^tokens\.issuers\[0\]\.keys\[1\]: .*key-1 holds a line that is no base64url$"),
    ],
)
def test_files_that_do_not_fit_the_settings(
    tmp_path: Path, files: list[bytes], types: tuple[int, ...], wrong: str
) -> None:
    with pytest.raises(SettingsError, match=wrong):
        ring(tmp_path, *files, types=types)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    made = KeyRing(2, IssuerSettings(name=NAME, keys=(tmp_path / "none",)))
    with pytest.raises(SettingsError, match=r"^tokens\.issuers\[2\]\.keys\[0\]: cannot read .*none: No such file"):
        made.load_files()


def test_a_directory_replaces_its_own_keys_only(tmp_path: Path) -> None:
    keys = ring(tmp_path, FIRST, directory="https://issuer.example")
    third = new_issuer(2)
    assert keys.take(parse_directory(directory(new_issuer(1))))
    assert keys.preferred(RSA, 0.0) == SECOND
    version = keys.version
    assert not keys.take(parse_directory(directory(new_issuer(1))))
    assert keys.version == version
    assert keys.take(parse_directory(directory(third, new_issuer(1))))
    assert [key.encoded for key in keys.live(RSA).values()] == [third.spki, SECOND, FIRST]
    assert keys.take(parse_directory(directory(third)))
    assert [key.encoded for key in keys.live(RSA).values()] == [third.spki, FIRST]


def test_a_key_whose_time_has_not_come_is_taken_but_not_offered(tmp_path: Path) -> None:
    keys = ring(tmp_path, directory="https://issuer.example")
    assert keys.take(parse_directory(directory(new_issuer(1), vector_issuer(), not_before=1000)))
    assert keys.preferred(RSA, 999.0) == FIRST
    assert keys.preferred(RSA, 1000.0) == SECOND
    assert len(keys.live(RSA)) == 2


@pytest.mark.parametrize(
    "entries",
    [(), (DirectoryKey(1, bytes(49)),), (DirectoryKey(2, FIRST), DirectoryKey(2, FIRST[:-1]))],
    ids=["none", "other-type", "one-broken"],
)
def test_a_directory_that_cannot_be_used_changes_nothing(tmp_path: Path, entries: tuple[DirectoryKey, ...]) -> None:
    keys = ring(tmp_path, directory="https://issuer.example")
    keys.take(parse_directory(directory(new_issuer(1), vector_issuer())))
    with pytest.raises(ValueError, match=r"a directory without a key|a token key"):
        keys.take(IssuerDirectory("/", entries))
    assert len(keys) == 2
