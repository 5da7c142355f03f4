"""The command line as an operator meets it: mistakes are one readable line, and the forwarders lead through."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from certs.generate import write_certificates
from relay import __version__
from relay.auth import preshared_entry, scrypt_digest
from relay.cli import _parser
from relay.settings import parse_basic_entry
from tests.e2e.conftest import StartProcess
from tests.e2e.origins import tcp_echo, tcp_listener, udp_origin
from tests.e2e.rig import KEY, command_environment, running_process, settings_of, start_command

_FOLDER = Path(__file__).parents[2]
_URL = "https://127.0.0.1:1"


def run(
    *arguments: str, environ: Mapping[str, str] | None = None, given: str = "", module: str = "relay"
) -> subprocess.CompletedProcess[str]:
    """Run `python -m relay` to its end, with `given` on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=_FOLDER,
        env=command_environment(environ),
        input=given,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def complaint(*arguments: str, environ: Mapping[str, str] | None = None, given: str = "") -> str:
    """Run a command that must fail with exit code 2 and one line; returns the line without its prefix."""
    done = run(*arguments, environ=environ, given=given)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("relay: ")
    return lines[0].removeprefix("relay: ")


@pytest.fixture
def good(certificates: Path) -> list[str]:
    """Options of a relay that would serve."""
    return [f"--set={name}={value}" for name, value in settings_of(certificates, "qh3", {}).items()]


class TestMistakes:
    def test_unknown_key_in_the_file(self, tmp_path: Path, good: list[str]) -> None:
        file = tmp_path / "relay.toml"
        file.write_text('[listen]\nhots = "127.0.0.1"\n')
        line = complaint("serve", "--config", str(file), *good)
        assert line == f"listen.hots (from {file}): is no setting; did you mean listen.host?"

    def test_unknown_variable(self, good: list[str]) -> None:
        line = complaint("serve", *good, environ={"RELAY_LISTEN__PROT": "1"})
        assert line == "RELAY_LISTEN__PROT (from the environment): is no setting; did you mean RELAY_LISTEN__PORT?"

    def test_unknown_name_on_the_command_line(self, good: list[str]) -> None:
        line = complaint("serve", *good, "--set=limits.stream=1")
        assert line == "limits.stream (from the command line): is no setting; did you mean limits.streams?"

    def test_bad_value(self, good: list[str]) -> None:
        line = complaint("serve", *good, "--set=listen.port=70000")
        assert line == "listen.port (from the command line): must be 0..65535, not 70000"

    def test_set_without_a_value(self, good: list[str]) -> None:
        assert complaint("serve", *good, "--set", "listen.port") == "--set listen.port: must be NAME=VALUE"

    def test_secrets_are_not_repeated(self, good: list[str]) -> None:
        line = complaint("serve", *good, f'--set=auth.preshared=["{KEY}"]')
        assert line.startswith("auth.preshared[0] (from the command line): must be")
        assert KEY not in line

    def test_missing_file(self, tmp_path: Path) -> None:
        file = tmp_path / "none.toml"
        assert complaint("serve", "--config", str(file)) == f"{file}: cannot be read: No such file or directory"

    def test_file_that_is_no_toml(self, tmp_path: Path) -> None:
        file = tmp_path / "relay.toml"
        file.write_text("listen = [\n")
        assert complaint("check", "--config", str(file)).startswith(f"{file}: is not valid TOML: ")

    def test_certificate_not_set(self, good: list[str]) -> None:
        line = complaint("serve", *(option for option in good if "tls.certificate" not in option))
        assert line == "tls.certificate (not set): must name a PEM file to serve"

    def test_certificate_missing(self, tmp_path: Path, good: list[str]) -> None:
        file = tmp_path / "none.pem"
        line = complaint("serve", *good, f"--set=tls.certificate={file}")
        assert line == f"tls.certificate: cannot read {file}: No such file or directory"

    def test_certificate_that_is_none(self, tmp_path: Path, good: list[str]) -> None:
        file = tmp_path / "server.pem"
        file.write_text("not a certificate")
        line = complaint("serve", *good, f"--set=tls.certificate={file}")
        assert line == f"tls.certificate: {file} holds no PEM certificate"

    def test_key_of_another_certificate(self, tmp_path: Path, certificates: Path, good: list[str]) -> None:
        write_certificates(tmp_path, ["localhost"])
        line = complaint("serve", *good, f"--set=tls.private_key={tmp_path / 'server.key'}")
        assert line.startswith(f"tls.private_key: {tmp_path / 'server.key'} is not the key of the certificate in ")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    def test_unreadable_key(self, tmp_path: Path, good: list[str]) -> None:
        file = tmp_path / "server.key"
        file.touch(mode=0)
        line = complaint("serve", *good, f"--set=tls.private_key={file}")
        assert line == f"tls.private_key: cannot read {file}: Permission denied"

    def test_key_that_is_a_folder(self, tmp_path: Path, good: list[str]) -> None:
        line = complaint("serve", *good, f"--set=tls.private_key={tmp_path}")
        assert line == f"tls.private_key: cannot read {tmp_path}: Is a directory"

    def test_port_in_use(self, good: list[str]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            line = complaint("serve", *good, f"--set=listen.port={port}")
        assert line == f"listen: cannot use 127.0.0.1 port {port}: Address already in use"

    def test_address_of_another_machine(self, good: list[str]) -> None:
        line = complaint("serve", *good, "--set=listen.host=192.0.2.1", "--set=listen.port=4433")
        assert line == "listen: cannot use 192.0.2.1 port 4433: Cannot assign requested address"

    def test_debug_mode_by_environment(self, good: list[str]) -> None:
        line = complaint("serve", *good, environ={"RELAY_TELEMETRY__DEBUG_ADDRESSES": "true"})
        assert line.startswith("telemetry.debug_addresses (from RELAY_TELEMETRY__DEBUG_ADDRESSES): cannot be set by")

    @pytest.mark.parametrize(
        "target", ["example.com", "example.com:0", "example.com:http", ":80", "example.com:65536"]
    )
    def test_forward_to_no_target(self, target: str) -> None:
        line = complaint("forward", "tcp", target, "--relay", _URL)
        assert line.startswith("the target: must be HOST:PORT")
        assert line.endswith(f"not {target}")

    def test_forward_from_no_port(self) -> None:
        line = complaint("forward", "udp", "example.com:53", "--relay", _URL, "--listen", "127.0.0.1")
        assert line.startswith("--listen: must be HOST:PORT")

    def test_forward_by_no_url(self) -> None:
        line = complaint("forward", "tcp", "example.com:80", "--relay", "127.0.0.1:4433")
        assert line == "the relay's URL must be https://host[:port]"

    def test_forward_without_the_key_file(self, tmp_path: Path) -> None:
        file = tmp_path / "key"
        line = complaint("forward", "tcp", "example.com:80", "--relay", _URL, "--key-file", str(file))
        assert line == f"--key-file: cannot read {file}: No such file or directory"

    def test_forward_without_the_authority(self, tmp_path: Path) -> None:
        file = tmp_path / "ca.pem"
        line = complaint("forward", "tcp", "example.com:80", "--relay", _URL, "--ca", str(file))
        assert line == f"--ca: cannot read {file}"

    @pytest.mark.parametrize("engine", ["qh3", "aioquic"])
    def test_forward_with_an_authority_that_is_none(self, tmp_path: Path, engine: str) -> None:
        file = tmp_path / "ca.pem"
        file.write_text("not a certificate")
        line = complaint("forward", "tcp", "example.com:80", "--relay", _URL, "--ca", str(file), "--engine", engine)
        assert str(file) in line

    @pytest.mark.parametrize("kind", ["tcp", "udp"])
    def test_forward_from_a_port_in_use(self, kind: str) -> None:
        form = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, form) as taken:
            taken.bind(("127.0.0.1", 0))
            if kind == "tcp":
                taken.listen()
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
            line = complaint("forward", kind, "example.com:80", "--relay", _URL, "--listen", listen)
        assert line == f"--listen: cannot use {listen}: Address already in use"

    @pytest.mark.parametrize("engine", ["qh3", "aioquic"])
    def test_forward_by_a_relay_that_is_not_there(self, engine: str) -> None:
        line = complaint("forward", "tcp", "example.com:80", "--relay", _URL, "--engine", engine)
        assert line == "no relay answers at that address and UDP port"

    @pytest.mark.parametrize("user", ["a:b", "", "a" * 129])
    def test_user_that_basic_cannot_carry(self, user: str) -> None:
        line = complaint("key", "--basic", user, given="secret\n")
        assert line == "--basic: a user name has 1 to 128 characters, no colon and no control characters"

    def test_no_password(self) -> None:
        assert complaint("key", "--basic", "ann") == "--basic: no password was given"
        line = complaint("key", "--basic", "ann", given="\n")
        assert line == "--basic: a password is not empty and has no control characters"

    def test_development_relay_without_a_certificate(self, tmp_path: Path) -> None:
        folder = tmp_path / "a b"
        line = complaint("dev", "--certificates", str(folder))
        assert line == (
            f"{folder} holds no server.pem; make it, in a checkout of masque-relay, with: "
            f"python -m certs.generate --out '{folder}'"
        )

    @pytest.mark.parametrize("name", ["a b", "", "-a.example", "a..example", "256.1.1.1", "a" * 64, "bücher.example"])
    def test_certificate_for_no_name(self, tmp_path: Path, name: str) -> None:
        done = run("--out", str(tmp_path / "new"), "--", "localhost", name, module="certs.generate")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"certs.generate: {name!r} is neither an IP address nor a DNS name\n"
        assert not (tmp_path / "new").exists()

    def test_unknown_command(self) -> None:
        done = run("server")
        assert done.returncode == 2
        assert "invalid choice: 'server'" in done.stderr


class TestSmallCommands:
    def test_version(self) -> None:
        done = run("--version")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"masque-relay {__version__}\n", "")

    def test_key_and_its_entry_belong_together(self) -> None:
        done = run("key")
        assert (done.returncode, done.stderr) == (0, "")
        found = re.fullmatch(r'key, for the client: +(\S+)\nentry for auth\.preshared: +"(\S+)"\n', done.stdout)
        assert found is not None, done.stdout
        assert preshared_entry(found[1]) == found[2]

    def test_basic_entry_from_a_pipe(self) -> None:
        done = run("key", "--basic", "ann", given="secret\n")
        assert (done.returncode, done.stderr) == (0, "")
        found = re.fullmatch(r'entry for auth\.basic: "(ann:scrypt:\S+)"\n', done.stdout)
        assert found is not None, done.stdout
        entry = parse_basic_entry(found[1])
        assert scrypt_digest(b"secret", entry.salt, entry.cost) == entry.digest

    @pytest.mark.parametrize(("again", "code"), [("secret", 0), ("secrte", 2)])
    def test_terminal_is_asked_twice(self, again: str, code: int) -> None:
        text, ended = at_a_terminal("key", "--basic", "ann", answers=["secret", again])
        assert ended == code, text
        assert text.count("password: ") == text.count("again: ") == 1
        assert ("the two passwords differ" in text) == (code == 2)
        assert again not in text, "passwords are not echoed"

    def test_certificate_for_any_name(self, tmp_path: Path) -> None:
        names = ["relay.example", "*.relay.example", "192.0.2.1", "2001:db8::1"]
        assert run("--out", str(tmp_path), *names, module="certs.generate").returncode == 0
        assert "python -m certs.generate" in run("--help", module="certs.generate").stdout

    def test_check_says_that_files_are_not_looked_at(self, tmp_path: Path) -> None:
        done = run("check", f"--set=tls.certificate={tmp_path / 'none.pem'}")
        assert done.returncode == 0
        assert "were not looked at: `relay serve` reads them when it starts" in done.stdout

    def test_check_prints_settings_that_can_be_read_back(self, tmp_path: Path, good: list[str]) -> None:
        done = run("check", *good, "--set=limits.streams=77", environ={"RELAY_IDENTITY": "relay-one"})
        assert (done.returncode, done.stderr) == (0, "")
        found = tomllib.loads(done.stdout)
        assert found["limits"]["streams"] == 77
        assert found["identity"] == "relay-one"
        assert preshared_entry(KEY) not in done.stdout

    def test_check_explains_every_setting(self) -> None:
        done = run("check", "--explain")
        assert (done.returncode, done.stderr) == (0, "")
        assert "limits.write_stall (default " in done.stdout

    def test_check_into_a_closed_pipe(self) -> None:
        command = f"{sys.executable} -m relay check --explain | head -n 1; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=_FOLDER,
            env=command_environment(),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def at_a_terminal(*arguments: str, answers: Sequence[str]) -> tuple[str, int]:
    """Run `python -m relay` at a terminal, answer its questions, and return what it showed and its exit code."""
    terminal, inner = pty.openpty()
    command = [sys.executable, "-m", "relay", *arguments]
    process = subprocess.Popen(
        command,
        cwd=_FOLDER,
        env=command_environment(),
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    )
    os.close(inner)
    text = ""
    left = list(answers)
    try:
        while data := os.read(terminal, 1000):
            text += data.decode()
            if text.endswith(": ") and left:
                os.write(terminal, left.pop(0).encode() + b"\n")
    except OSError:  # how Linux tells that nobody has the terminal open any more
        pass
    finally:
        os.close(terminal)
        code = process.wait(20)
    return text, code


@asynccontextmanager
async def forwarder(
    kind: str, target: str, relay_url: str, *options: str
) -> AsyncIterator[tuple[tuple[str, int], asyncio.subprocess.Process]]:
    """Run `relay forward` until it says where it listens; stopped by SIGTERM."""
    arguments = ("forward", kind, target, "--relay", relay_url, *options)
    process = await start_command(*arguments, stderr=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(15):
            line = (await process.stdout.readline()).decode()
        found = re.fullmatch(rf"relay: forwarding {kind} (.+):(\d+) to {re.escape(target)}\n", line)
        assert found is not None, line
        yield (found[1], int(found[2])), process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            rest, errors = await process.communicate()
        assert (process.returncode, rest) == (0, b""), errors.decode()


@pytest.mark.anyio
class TestForward:
    async def test_tcp(self, start_process: StartProcess, tmp_path: Path, engine: str) -> None:
        key_file = tmp_path / "key"
        key_file.write_text(KEY + "\n")
        async with tcp_echo() as port, start_process() as relay:
            options = ("--ca", str(relay.certificates / "ca.pem"), "--key-file", str(key_file), "--engine", engine)
            async with forwarder("tcp", f"127.0.0.1:{port}", relay.url, *options) as (address, _):
                blob = os.urandom(300_000)

                async def exchange() -> bytes:
                    reader, writer = await asyncio.open_connection(*address)
                    try:
                        writer.write(blob)
                        writer.write_eof()
                        return await reader.read()
                    finally:
                        writer.close()
                        await writer.wait_closed()

                async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
                    users = [tasks.create_task(exchange()) for _ in range(5)]
                assert all(user.result() == blob for user in users)

    async def test_udp(self, start_process: StartProcess, engine: str) -> None:
        async with udp_origin(echoes=True) as origin, start_process() as relay:
            options = ("--ca", str(relay.certificates / "ca.pem"), "--key", KEY, "--engine", engine)
            async with forwarder("udp", f"127.0.0.1:{origin.port}", relay.url, *options) as (address, _):
                loop = asyncio.get_running_loop()
                for user in range(3):
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                        sock.setblocking(False)
                        sock.connect(address)
                        for size in (1, 0, 1200):
                            payload = bytes([user]) * size
                            await loop.sock_sendall(sock, payload) if size else sock.send(b"")
                            async with asyncio.timeout(5):
                                assert await loop.sock_recv(sock, 2000) == payload
                assert len(origin.senders) == 3, "each local sender has a tunnel of its own"

    async def test_refusal_is_said_and_ends_the_connection(self, certificates: Path) -> None:
        async with tcp_listener() as origin, running_process(certificates, "qh3") as relay:
            port = origin.port
            origin.close()
            options = ("--ca", str(certificates / "ca.pem"), "--key", KEY)
            async with forwarder("tcp", f"127.0.0.1:{port}", relay.url, *options) as (address, process):
                reader, writer = await asyncio.open_connection(*address)
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
                assert process.stderr is not None
                line = (await process.stderr.readline()).decode()
                assert line == "relay: the relay answered 502 (masque-relay;error=connection_refused)\n"

    @pytest.mark.parametrize("kind", ["tcp", "udp"])
    async def test_wrong_key(self, certificates: Path, kind: str) -> None:
        async with running_process(certificates, "qh3") as relay:
            options = ("--ca", str(certificates / "ca.pem"), "--key=wrong")
            async with forwarder(kind, "127.0.0.1:9", relay.url, *options) as (address, process):
                form = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
                with socket.socket(socket.AF_INET, form) as user:
                    user.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(user, address)
                    await asyncio.get_running_loop().sock_sendall(user, b"x")
                    assert process.stderr is not None
                    async with asyncio.timeout(5):
                        line = (await process.stderr.readline()).decode()
        assert re.fullmatch(r"relay: the relay answered 407( \(.*\))?; is the key right\?\n", line), line

    async def test_certificate_that_is_not_trusted(self, certificates: Path, tmp_path: Path) -> None:
        write_certificates(tmp_path, ["localhost"])
        async with running_process(certificates, "qh3") as relay:
            for library in ("qh3", "aioquic"):
                options = ("--ca", str(tmp_path / "ca.pem"), "--key", KEY, "--engine", library)
                process = await start_command(
                    "forward", "tcp", "127.0.0.1:1", "--relay", relay.url, *options, stderr=asyncio.subprocess.PIPE
                )
                output, errors = await process.communicate()
                assert (process.returncode, output) == (2, b"")
                assert len(errors.splitlines()) == 1, errors.decode()


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["certs", "a{b}", "a {address}'s"])
async def test_development_relay_says_how_to_try_it(certificates: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(certificates, folder)
    process = await start_command("dev", "--certificates", str(folder), "--set=listen.port=0")
    assert process.stdout is not None
    try:
        text = ""
        async with asyncio.timeout(15):
            while "Ctrl-C" not in text:
                line = await process.stdout.readline()
                assert line, text
                text += line.decode()
    finally:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(15):
            await process.communicate()
    assert process.returncode == 0
    assert "relay forward tcp 127.0.0.1:8000" in text
    (hint,) = [hint for hint in text.splitlines() if "forward tcp" in hint]
    options = _parser().parse_args(shlex.split(hint)[1:])
    assert options.ca == folder / "ca.pem"
    assert f"serving HTTP/3 on {options.relay.removeprefix('https://')} with" in text
    assert len(options.key) >= 40
    assert f"--key={options.key}" in hint


def test_private_key_is_for_its_owner_only(certificates: Path) -> None:
    assert stat.S_IMODE((certificates / "server.key").stat().st_mode) == 0o600
