"""The command line as an operator meets it: mistakes are one readable line, and the forwarders lead through."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from relay.quic.development import write_certificates
from tests.e2e.command import URL, complaint, run
from tests.e2e.rig import KEY


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

    def test_tokens_and_everybody(self, tmp_path: Path, good: list[str]) -> None:
        issuer = f'[{{"name": "issuer.example", "keys": ["{tmp_path / "none"}"]}}]'
        line = complaint("serve", *good, f"--set=tokens.issuers={issuer}", "--set=auth.open=true")
        assert line == "auth.open, tokens.issuers: the first admits everybody without a token; set one of them"
        line = complaint("serve", *good, f"--set=tokens.issuers={issuer}")
        assert line == f"tokens.issuers[0].keys[0]: cannot read {tmp_path / 'none'}: No such file or directory"

    def test_debug_mode_by_environment(self, good: list[str]) -> None:
        line = complaint("serve", *good, environ={"RELAY_TELEMETRY__DEBUG_ADDRESSES": "true"})
        assert line.startswith("telemetry.debug_addresses (from RELAY_TELEMETRY__DEBUG_ADDRESSES): cannot be set by")

    @pytest.mark.parametrize(
        "target", ["example.com", "example.com:0", "example.com:http", ":80", "example.com:65536"]
    )
    def test_forward_to_no_target(self, target: str) -> None:
        line = complaint("forward", "tcp", target, "--relay", URL)
        assert line.startswith("the target: must be HOST:PORT")
        assert line.endswith(f"not {target}")

    def test_forward_from_no_port(self) -> None:
        line = complaint("forward", "udp", "example.com:53", "--relay", URL, "--listen", "127.0.0.1")
        assert line.startswith("--listen: must be HOST:PORT")

    def test_forward_by_no_url(self) -> None:
        line = complaint("forward", "tcp", "example.com:80", "--relay", "127.0.0.1:4433")
        assert line == "the relay's URL must be https://host[:port]"

    def test_forward_without_the_key_file(self, tmp_path: Path) -> None:
        file = tmp_path / "key"
        line = complaint("forward", "tcp", "example.com:80", "--relay", URL, "--key-file", str(file))
        assert line == f"--key-file: cannot read {file}: No such file or directory"

    def test_forward_without_the_authority(self, tmp_path: Path) -> None:
        file = tmp_path / "ca.pem"
        line = complaint("forward", "tcp", "example.com:80", "--relay", URL, "--ca", str(file))
        assert line == f"--ca: cannot read {file}"

    @pytest.mark.parametrize("engine", ["qh3", "aioquic"])
    def test_forward_with_an_authority_that_is_none(self, tmp_path: Path, engine: str) -> None:
        file = tmp_path / "ca.pem"
        file.write_text("not a certificate")
        line = complaint("forward", "tcp", "example.com:80", "--relay", URL, "--ca", str(file), "--engine", engine)
        assert str(file) in line

    @pytest.mark.parametrize("kind", ["tcp", "udp"])
    def test_forward_from_a_port_in_use(self, kind: str) -> None:
        form = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, form) as taken:
            taken.bind(("127.0.0.1", 0))
            if kind == "tcp":
                taken.listen()
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
            line = complaint("forward", kind, "example.com:80", "--relay", URL, "--listen", listen)
        assert line == f"--listen: cannot use {listen}: Address already in use"

    @pytest.mark.parametrize("engine", ["qh3", "aioquic"])
    def test_forward_by_a_relay_that_is_not_there(self, engine: str) -> None:
        line = complaint("forward", "tcp", "example.com:80", "--relay", URL, "--engine", engine)
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
