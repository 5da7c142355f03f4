"""RSA blind signatures: RFC 9474's vectors in all four variants; broken keys, factors and messages."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.errors import LocalMisuse, Malformed
from masque.privacypass import (
    ENTROPY_SIZE,
    SALT_SIZE,
    blind_message,
    blind_sign,
    draw_factor,
    finalize_signature,
    parse_blind_rsa_private_key,
    prepare_randomized,
)
from tests.masque.privacypass_vectors import ENTROPY, load, rsa_key, unhex

SUITE = load("rfc9474")


def _numbers() -> rsa.RSAPrivateNumbers:
    p, q, n, e, d = (int(SUITE[name], 16) for name in ("p", "q", "n", "e", "d"))
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(e, n))


@pytest.mark.parametrize("vector", SUITE["vectors"], ids=[vector["name"] for vector in SUITE["vectors"]])
def test_rfc_9474_appendix_a(vector: dict[str, str]) -> None:
    message, prefix, prepared, salt = unhex(vector, "msg", "msg_prefix", "input_msg", "salt")
    blinded, answer, signature = unhex(vector, "blinded_msg", "blind_sig", "sig")
    private = _numbers()
    public = private.public_numbers
    inverse = int(vector["inv"], 16)
    randomized = vector["is_randomized"] == "01"
    assert len(salt) == int(vector["sLen"], 16)
    assert (prepare_randomized(message, prefix) if randomized else message) == prepared
    made = blind_message(public, prepared, pow(inverse, -1, public.n), salt)
    assert (made.data, made.inverse) == (blinded, inverse)
    for factor in (1, 2, public.n - 1, draw_factor(public.n, ENTROPY * 2)):
        assert blind_sign(private, blinded, factor) == answer
    assert finalize_signature(public, prepared, answer, inverse, len(salt)) == signature
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), len(salt))
    public.public_key().verify(signature, prepared, pss, hashes.SHA384())
    with pytest.raises(Malformed):
        finalize_signature(public, prepared, answer, inverse, SALT_SIZE - len(salt))
    with pytest.raises(Malformed):
        finalize_signature(public, prepared + b"\0", answer, inverse, len(salt))
    with pytest.raises(Malformed):
        finalize_signature(public, prepared, signature, inverse, len(salt))


def test_the_variants_of_the_vectors_are_all_four() -> None:
    names = {vector["name"] for vector in SUITE["vectors"]}
    assert names == {f"RSABSSA-SHA384-{p}-{r}" for p in ("PSS", "PSSZERO") for r in ("Randomized", "Deterministic")}


@given(st.binary(max_size=200), st.binary(min_size=48, max_size=48), st.binary(min_size=ENTROPY_SIZE, max_size=300))
@settings(max_examples=20)
def test_any_message_is_signed(message: bytes, salt: bytes, entropy: bytes) -> None:
    private = rsa_key().numbers
    public = private.public_numbers
    made = blind_message(public, message, draw_factor(public.n, entropy), salt)
    answer = rsa_key().sign(made.data, ENTROPY)
    assert len(finalize_signature(public, message, answer, made.inverse)) == 256


def test_blinded_messages_of_one_message_are_not_alike() -> None:
    public = rsa_key().numbers.public_numbers
    made = {blind_message(public, b"message", factor, bytes(48)).data for factor in (1, 2, 3)}
    assert len(made) == 3


@pytest.mark.parametrize("size", [0, 1, 255, 257, 512])
def test_messages_of_another_size_are_not_signed(size: int) -> None:
    with pytest.raises(Malformed):
        rsa_key().sign(bytes(size), ENTROPY)


def test_numbers_that_are_too_large_are_not_signed() -> None:
    modulus = rsa_key().public.modulus
    for number in (modulus, modulus + 1, 2**2048 - 1):
        with pytest.raises(Malformed):
            rsa_key().sign(number.to_bytes(256, "big"), ENTROPY)
    assert rsa_key().sign((modulus - 1).to_bytes(256, "big"), ENTROPY) == (modulus - 1).to_bytes(256, "big")
    assert rsa_key().sign(bytes(256), ENTROPY) == bytes(256)


@given(st.binary(min_size=250, max_size=260))
@settings(max_examples=20)
def test_any_bytes_are_signed_or_refused(data: bytes) -> None:
    key = rsa_key()
    try:
        answer = key.sign(data, ENTROPY)
    except Malformed:
        return
    number = pow(int.from_bytes(answer, "big"), key.public.exponent, key.public.modulus)
    assert number == int.from_bytes(data, "big")


@pytest.mark.parametrize("name", ["dmp1", "dmq1", "iqmp"])
def test_a_fault_does_not_leave_the_signer(name: str) -> None:
    good = rsa_key().numbers
    parts = {field: getattr(good, field) for field in ("p", "q", "d", "dmp1", "dmq1", "iqmp", "public_numbers")}
    broken = rsa.RSAPrivateNumbers(**parts | {name: parts[name] + 2})
    with pytest.raises(LocalMisuse):
        blind_sign(broken, b"\0" + b"\1" * 255, 1)


def test_factors_without_an_inverse_are_refused() -> None:
    private = rsa_key().numbers
    public = private.public_numbers
    for factor in (0, -1, public.n, public.n + 1, private.p, 2 * private.q):
        with pytest.raises(LocalMisuse):
            blind_message(public, b"message", factor, bytes(48))
        with pytest.raises(LocalMisuse):
            blind_sign(private, bytes(256), factor)


def test_factors_are_in_range() -> None:
    modulus = rsa_key().public.modulus
    assert draw_factor(modulus, bytes(ENTROPY_SIZE)) == 1
    assert draw_factor(modulus, (modulus - 2).to_bytes(ENTROPY_SIZE, "big")) == modulus - 1
    assert draw_factor(modulus, (modulus - 1).to_bytes(ENTROPY_SIZE, "big")) == 1
    with pytest.raises(LocalMisuse):
        draw_factor(modulus, bytes(ENTROPY_SIZE - 1))
    with pytest.raises(LocalMisuse):
        rsa_key().sign(bytes(256), bytes(ENTROPY_SIZE - 1))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_prefixes_have_32_bytes(size: int) -> None:
    with pytest.raises(LocalMisuse):
        prepare_randomized(b"message", bytes(size))


def test_a_key_too_short_for_the_salt_is_refused() -> None:
    with pytest.raises(LocalMisuse):
        blind_message(rsa.RSAPublicNumbers(3, (1 << 512) + 1), b"message", 2, bytes(48))


def test_every_prefix_and_flip_of_a_blind_signature_is_refused() -> None:
    public = rsa_key().numbers.public_numbers
    made = blind_message(public, b"message", 5, bytes(48))
    answer = rsa_key().sign(made.data, ENTROPY)
    for size in range(len(answer)):
        with pytest.raises(Malformed):
            finalize_signature(public, b"message", answer[:size], made.inverse)
    for place in range(len(answer)):
        changed = bytearray(answer)
        changed[place] ^= 1
        with pytest.raises(Malformed):
            finalize_signature(public, b"message", bytes(changed), made.inverse)
    with pytest.raises(Malformed):
        finalize_signature(public, b"message", answer + b"\0", made.inverse)
    with pytest.raises(Malformed):
        finalize_signature(public, b"message", answer, made.inverse + 1)


@given(st.binary(min_size=254, max_size=258))
def test_any_blind_signature_is_refused(data: bytes) -> None:
    public = rsa_key().numbers.public_numbers
    with pytest.raises(Malformed):
        finalize_signature(public, b"message", data, 3)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_private_keys_come_back(encoding: Encoding) -> None:
    key = rsa_key().numbers.private_key()
    data = key.private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption())
    assert parse_blind_rsa_private_key(data).public == rsa_key().public


def test_private_keys_that_are_none_are_refused() -> None:
    curve = ec.generate_private_key(ec.SECP384R1())
    small = rsa.generate_private_key(65537, 1024)
    pem = rsa_key().numbers.private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    locked = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    for data in (
        b"",
        b"-----BEGIN PRIVATE KEY-----",
        pem[:-40],
        locked,
        curve.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        small.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        rsa_key().public.encoded,
    ):
        with pytest.raises(Malformed):
            parse_blind_rsa_private_key(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_private_key(data: bytes) -> None:
    for prefix in (b"", b"-----BEGIN PRIVATE KEY-----\n"):
        with pytest.raises(Malformed):
            parse_blind_rsa_private_key(prefix + data)


def test_no_secret_is_in_a_text() -> None:
    numbers = rsa_key().numbers
    made = blind_message(numbers.public_numbers, b"message", 5, bytes(48))
    for text in (repr(rsa_key()), repr(made)):
        assert str(numbers.d) not in text
        assert str(made.inverse) not in text
