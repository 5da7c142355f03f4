"""What can be wrong with tokens' settings is one line before anything serves."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from relay.auth import describe_tokens, prepare_tokens
from relay.settings import SettingsError, TokenSettings
from tests.relay.private_token.rig import NAME, settings
from tests.relay.spent.rig import Clock


def wrong(token_settings: TokenSettings) -> str:
    with pytest.raises(SettingsError) as caught:
        prepare_tokens(token_settings, Clock())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_issuer_is_no_gate() -> None:
    assert prepare_tokens(TokenSettings(), Clock()) is None
    assert describe_tokens(TokenSettings()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none" / "spent.db"
    expected = f"tokens.store.path: the folder {path.parent} does not exist; make it for the relay alone"
    assert wrong(settings(tmp_path, store={"kind": "sqlite", "path": path})) == expected


def test_a_path_that_is_a_folder(tmp_path: Path) -> None:
    expected = f"tokens.store.path: {tmp_path} cannot be written to"
    assert wrong(settings(tmp_path, store={"kind": "sqlite", "path": tmp_path})) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(0o500)
    assert "cannot be written to" in wrong(settings(tmp_path, store={"kind": "sqlite", "path": folder / "spent.db"}))


@pytest.mark.parametrize("url", ["http://redis.example", "redis://:hunter2@h/0?x=1"])
def test_a_server_s_url_that_cannot_be_used(tmp_path: Path, url: str) -> None:
    line = wrong(settings(tmp_path, store={"kind": "redis", "url": url}))
    assert line.startswith("tokens.store: the URL of the Redis server is redis://")
    assert "hunter2" not in line


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "relay.spent.redis", None)
    line = wrong(settings(tmp_path, store={"kind": "redis", "url": "redis://h"}))
    assert line == "tokens.store: the store redis needs the package redis: install masque-relay[redis]"


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    issuer = {"name": NAME, "directory": "https://a.example", "ca_file": tmp_path / "none"}
    line = wrong(settings(tmp_path, issuers=[issuer]))
    assert line == f"tokens.issuers[0].ca_file: {tmp_path / 'none'} cannot be read: No such file or directory"
    (tmp_path / "none").write_text("nothing")
    line = wrong(settings(tmp_path, issuers=[issuer]))
    assert line == f"tokens.issuers[0].ca_file: {tmp_path / 'none'} holds no certificate"
    line = wrong(settings(tmp_path, store={"kind": "redis", "url": "rediss://h", "ca_file": tmp_path / "gone"}))
    assert line == f"tokens.store.ca_file: cannot read {tmp_path / 'gone'}"


def test_a_directory_that_no_client_fetches(tmp_path: Path) -> None:
    issuer = {"name": NAME, "directory": "https://256.0.0.1"}
    expected = "tokens.issuers[0].directory: is no URL that can be fetched"
    bad = settings(tmp_path, issuers=[issuer])
    assert wrong(bad) == expected
    assert describe_tokens(bad)[1] == f"tokens.issuers[0]: CANNOT BE USED: {expected}"


def test_what_is_set_is_described_and_nothing_is_made(tmp_path: Path) -> None:
    path = tmp_path / "spent.db"
    good = settings(tmp_path, store={"kind": "sqlite", "path": path})
    assert describe_tokens(good) == [
        f"tokens.issuers[0]: {NAME}, keys in its files: 1 of type 1, 1 of type 2",
        "tokens.context: none, can be used",
        f"tokens.store: sqlite, {path} will be made",
    ]
    assert not path.exists()
    (tmp_path / "key.pem").unlink()
    first, *_ = describe_tokens(good)
    assert first.startswith(f"tokens.issuers[0]: {NAME}, CANNOT BE USED: tokens.issuers[0].keys[0]: cannot read ")


def test_a_directory_is_described_and_not_fetched(tmp_path: Path) -> None:
    issuer = {"name": NAME, "directory": "https://a.example"}
    lines = describe_tokens(settings(tmp_path, issuers=[issuer]))
    assert "tokens.issuers[0]: keys of https://a.example are fetched when the relay serves" in lines
