"""RFC 9497's VOPRF(P-384, SHA-384) once more, in plain integers: slow, leaky, and independent of any package.

It takes blinds and keys as numbers, which the package behind `masque.privacypass.voprf` does not, so it can follow
the RFCs' vectors, and then stand on the other side of that package.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

P = 2**384 - 2**128 - 2**96 + 2**32 - 1
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
A = P - 3
B = 0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF
Z = P - 12
G = (
    0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
    0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
)
CONTEXT = b"OPRFV1-\x01-P384-SHA384"

Point = tuple[int, int] | None


def add(left: Point, right: Point) -> Point:
    """Add two points."""
    if left is None or right is None:
        return left or right
    (x1, y1), (x2, y2) = left, right
    if x1 == x2 and (y1 + y2) % P == 0:
        return None
    slope = (3 * x1 * x1 + A) * pow(2 * y1, -1, P) if left == right else (y2 - y1) * pow(x2 - x1, -1, P)
    x3 = (slope * slope - x1 - x2) % P
    return x3, (slope * (x1 - x3) - y1) % P


def multiply(scalar: int, point: Point) -> Point:
    """Multiply a point."""
    result: Point = None
    for bit in bin(scalar % N)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def serialize(point: Point) -> bytes:
    """SerializeElement."""
    assert point is not None
    return bytes((2 + (point[1] & 1),)) + point[0].to_bytes(48, "big")


def deserialize(data: bytes) -> Point:
    """DeserializeElement."""
    x = int.from_bytes(data[1:], "big")
    y = pow(x**3 + A * x + B, (P + 1) // 4, P)
    assert (y * y - x**3 - A * x - B) % P == 0
    return x, y if y & 1 == data[0] & 1 else P - y


def _framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _expand(message: bytes, dst: bytes, size: int) -> bytes:
    """Implement expand_message_xmd of RFC 9380."""
    suffix = dst + bytes((len(dst),))
    first = hashlib.sha384(bytes(128) + message + size.to_bytes(2, "big") + b"\0" + suffix).digest()
    block = hashlib.sha384(first + b"\1" + suffix).digest()
    blocks = [block]
    while len(blocks) * 48 < size:
        mixed = bytes(x ^ y for x, y in zip(first, block, strict=True))
        block = hashlib.sha384(mixed + bytes((len(blocks) + 1,)) + suffix).digest()
        blocks.append(block)
    return b"".join(blocks)[:size]


def hash_to_scalar(message: bytes, dst: bytes = b"HashToScalar-" + CONTEXT) -> int:
    """HashToScalar."""
    return int.from_bytes(_expand(message, dst, 72), "big") % N


def _map_to_curve(u: int) -> Point:
    """The simplified SWU map of RFC 9380."""
    t = (Z * Z * u**4 + Z * u * u) % P
    x = B * pow(Z * A, -1, P) if t == 0 else -B * pow(A, -1, P) * (1 + pow(t, -1, P))
    x %= P
    square = (x**3 + A * x + B) % P
    if pow(square, (P - 1) // 2, P) == P - 1:
        x = Z * u * u * x % P
        square = (x**3 + A * x + B) % P
    y = pow(square, (P + 1) // 4, P)
    return x, y if y & 1 == u & 1 else P - y


def hash_to_group(message: bytes) -> Point:
    """HashToGroup."""
    uniform = _expand(message, b"HashToGroup-" + CONTEXT, 144)
    halves = (uniform[:72], uniform[72:])
    return add(*(_map_to_curve(int.from_bytes(half, "big") % P) for half in halves))


def derive_key(seed: bytes, info: bytes) -> int:
    """DeriveKeyPair, the private half."""
    for counter in range(256):
        key = hash_to_scalar(seed + _framed(info) + bytes((counter,)), b"DeriveKeyPair" + CONTEXT)
        if key:
            return key
    raise AssertionError


def finish(message: bytes, point: Point) -> bytes:
    """The hash at the end of Finalize and Evaluate."""
    return hashlib.sha384(_framed(message, serialize(point)) + b"Finalize").digest()


def blind(message: bytes, factor: int) -> bytes:
    """Blind."""
    return serialize(multiply(factor, hash_to_group(message)))


def unblind(message: bytes, factor: int, evaluated: bytes) -> bytes:
    """Finalize, after the proof was verified."""
    return finish(message, multiply(pow(factor, -1, N), deserialize(evaluated)))


def evaluate(key: int, message: bytes) -> bytes:
    """Evaluate."""
    return finish(message, multiply(key, hash_to_group(message)))


@dataclass
class Statement:
    """That one key took all blinded elements to their evaluations."""

    public: bytes
    blinded: list[bytes]
    evaluated: list[bytes]

    def composites(self) -> tuple[Point, Point]:
        """ComputeComposites."""
        seed = hashlib.sha384(_framed(self.public, b"Seed-" + CONTEXT)).digest()
        blinded: Point = None
        evaluated: Point = None
        for index, (c, d) in enumerate(zip(self.blinded, self.evaluated, strict=True)):
            transcript = _framed(seed) + index.to_bytes(2, "big") + _framed(c, d) + b"Composite"
            weight = hash_to_scalar(transcript)
            blinded = add(blinded, multiply(weight, deserialize(c)))
            evaluated = add(evaluated, multiply(weight, deserialize(d)))
        return blinded, evaluated

    def challenge(self, m: Point, z: Point, t2: Point, t3: Point) -> int:
        """The challenge of a proof."""
        return hash_to_scalar(_framed(self.public, *map(serialize, (m, z, t2, t3))) + b"Challenge")

    def prove(self, key: int, r: int) -> bytes:
        """GenerateProof."""
        m, z = self.composites()
        c = self.challenge(m, z, multiply(r, G), multiply(r, m))
        return c.to_bytes(48, "big") + ((r - c * key) % N).to_bytes(48, "big")

    def holds(self, proof: bytes) -> bool:
        """VerifyProof."""
        c, s = int.from_bytes(proof[:48], "big"), int.from_bytes(proof[48:], "big")
        m, z = self.composites()
        t2 = add(multiply(s, G), multiply(c, deserialize(self.public)))
        t3 = add(multiply(s, m), multiply(c, z))
        return self.challenge(m, z, t2, t3) == c
