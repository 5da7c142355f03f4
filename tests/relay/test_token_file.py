"""relay.client.TokenFile: a token is handed out once, to one of several processes, whatever crashes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.privacypass import DIGEST_SIZE, encode_base64url, parse_base64url
from relay.client import ClientError, TokenFile
from relay.client.token_file import MAX_TOKEN_FILE

ROOT = Path(__file__).parents[2]
A, B = b"a" * DIGEST_SIZE, b"b" * DIGEST_SIZE
TAKER = """
import sys
from pathlib import Path
from masque.privacypass import encode_base64url
from relay.client import TokenFile
file = TokenFile(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
while (token := file.take([b"a" * 32])) is not None:
    print(encode_base64url(token).decode(), flush=True)
"""


def token(number: int, digest: bytes = A, size: int = 354) -> bytes:
    """Something of a token's structure; nobody here looks at authenticators."""
    kind = b"\0\2" if size == 354 else b"\0\1"
    return (kind + number.to_bytes(32, "big") + digest).ljust(size, b"\7")


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens")


def test_tokens_go_in_and_out_once(file: TokenFile) -> None:
    tokens = [token(number) for number in range(5)]
    file.append(tokens)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [file.take([A]) for _ in range(6)] == [*tokens, None]
    assert file.path.read_bytes() == b"", "a file without tokens is empty"


def test_what_was_taken_leaves_no_trace(file: TokenFile) -> None:
    file.append([token(1), token(2)])
    taken = file.take([A])
    assert taken == token(1)
    lines = file.path.read_bytes().splitlines()
    assert set(lines[0]) == {ord("#")}
    assert lines[1] == encode_base64url(token(2))


def test_the_preferred_challenge_goes_first(file: TokenFile) -> None:
    file.append([token(1, A), token(2, B), token(3, B, 146)])
    assert file.count() == {A: 1, B: 2}
    assert file.take([B, A]) == token(2, B)
    assert file.take([B, A]) == token(3, B, 146)
    assert file.take([B, A]) == token(1, A)
    assert file.take([B, A]) is None


def test_other_challenges_tokens_stay(file: TokenFile) -> None:
    file.append([token(1, B)])
    before = file.path.read_bytes()
    assert file.take([A]) is None
    assert file.path.read_bytes() == before


def test_a_token_that_is_there_twice_is_handed_out_once(file: TokenFile) -> None:
    short = encode_base64url(token(1, size=146))
    assert short.endswith(b"=")
    file.path.write_bytes(short + b"\n" + short.rstrip(b"=") + b"\r\n" + short)
    assert file.take([A]) == token(1, size=146)
    assert file.take([A]) is None


def test_people_may_write_into_the_file(file: TokenFile) -> None:
    file.path.write_bytes(b"# mine\n\nnonsense\n" + encode_base64url(token(1)) + b"  \r\n" + b"A" * 400 + b"\n")
    file.append([token(2)])
    assert [file.take([A]), file.take([A]), file.take([A])] == [token(1), token(2), None]
    assert file.path.read_bytes().startswith(b"# mine\n\nnonsense\n")


def test_a_line_that_was_cut_off_does_not_spoil_the_next(file: TokenFile) -> None:
    file.path.write_bytes(encode_base64url(token(1))[:-7])
    file.append([token(2)])
    assert file.take([A]) == token(2)
    assert file.take([A]) is None


@given(cut=st.integers(0, 472), start=st.integers(0, 472))
def test_a_token_that_is_partly_written_over_is_none(
    tmp_path_factory: pytest.TempPathFactory, cut: int, start: int
) -> None:
    """A crash between the write and its end, whatever part of the line reached the disk."""
    line = encode_base64url(token(1))
    start, cut = sorted((start, cut))
    left = line[:start] + b"#" * (cut - start) + line[cut:]
    file = TokenFile(tmp_path_factory.getbasetemp() / "torn")
    file.path.write_bytes(left + b"\n")
    assert file.take([A]) == (token(1) if left == line else None)


@pytest.mark.slow
def test_processes_share_a_file_and_one_dies(file: TokenFile) -> None:
    tokens = [token(number) for number in range(150)]
    file.append(tokens)
    command = [sys.executable, "-c", TAKER, str(file.path)]
    takers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True)
        for _ in range(3)
    ]
    outputs = []
    try:
        for taker in takers:
            assert taker.stdout is not None
            assert taker.stdout.readline() == "ready\n"
        for taker in takers:
            assert taker.stdin is not None
            taker.stdin.write("\n")
            taker.stdin.flush()
        victim = takers[0]
        assert victim.stdout is not None
        first = [victim.stdout.readline() for _ in range(5)]
        victim.send_signal(signal.SIGKILL)
        outputs = [first + victim.stdout.readlines()]
        outputs += [taker.communicate(timeout=30)[0].splitlines() for taker in takers[1:]]
    finally:
        for taker in takers:
            taker.kill()
            taker.wait()
            for stream in (taker.stdin, taker.stdout):
                assert stream is not None
                stream.close()
    taken = [parse_base64url(line.strip().encode()) for lines in outputs for line in lines if len(line) > 470]
    assert len(taken) == len(set(taken)), "no token twice"
    assert set(taken) <= set(tokens)
    assert len(taken) >= len(tokens) - 1, "who was killed may have had one in hand"
    assert file.take([A]) is None


def test_a_missing_file_is_one_line(file: TokenFile) -> None:
    with pytest.raises(ClientError, match="No such file"):
        file.take([A])


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_only_regular_files_hold_tokens(file: TokenFile, kind: str) -> None:
    if kind == "folder":
        file.path.mkdir()
    else:
        os.mkfifo(file.path)
    with pytest.raises(ClientError, match=r"no regular file|directory"):
        file.append([token(1)])
    with pytest.raises(ClientError, match=r"no regular file|directory"):
        file.take([A])


def test_a_file_that_is_too_large_is_not_read(file: TokenFile) -> None:
    file.append([token(1)])
    os.truncate(file.path, MAX_TOKEN_FILE + 1)
    with pytest.raises(ClientError, match="larger than"):
        file.take([A])
    with pytest.raises(ClientError, match="larger than"):
        file.append([token(2)])


@given(st.binary(max_size=600))
def test_any_file_is_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = TokenFile(tmp_path_factory.getbasetemp() / "any")
    file.path.write_bytes(data)
    assert file.take([A]) is None
    assert file.path.read_bytes() == data
