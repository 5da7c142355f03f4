"""The branch `tokens`: lists of tables from every source, what must fit, and what is not shown."""

from __future__ import annotations

import json
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.settings import SettingsError, describe_settings, dump_settings, load_settings

TABLE = {"name": "issuer.example", "keys": ["a.pem", "b.pem"], "refresh": "10m", "types": [2, 1]}


def message(overrides: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, None, overrides)
    return str(caught.value)


def issuers(*tables: object) -> dict[str, str]:
    return {"tokens.issuers": json.dumps(tables)}


def test_tables_are_the_same_from_every_source(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(
        '[tokens]\nadmits = 3\n[[tokens.issuers]]\nname = "issuer.example"\nkeys = ["a.pem", "b.pem"]\n'
        'refresh = "10m"\ntypes = [2, 1]\n'
    )
    found = [
        load_settings(file),
        load_settings(None, {"RELAY_TOKENS__ISSUERS": json.dumps([TABLE]), "RELAY_TOKENS__ADMITS": "3"}),
        load_settings(None, None, {**issuers(TABLE), "tokens.admits": "3"}),
    ]
    assert found[0] == found[1] == found[2]
    (issuer,) = found[0].tokens.issuers
    assert issuer.keys == (Path("a.pem"), Path("b.pem"))
    assert issuer.refresh == timedelta(minutes=10)
    assert issuer.types == (2, 1)


def test_the_dump_is_read_back(tmp_path: Path) -> None:
    other = {"name": "other.example:8443", "directory": "https://other.example:8443", "ca_file": 'a "b".pem'}
    settings = load_settings(None, None, {**issuers(TABLE, other), "tokens.admits": "connection"})
    file = tmp_path / "relay.toml"
    file.write_text(dump_settings(settings))
    assert load_settings(file) == settings


def test_a_server_s_url_is_not_shown() -> None:
    given_url = {"tokens.store.kind": "redis", "tokens.store.url": "rediss://user:hunter2@redis.example/0"}
    settings = load_settings(None, None, given_url)
    assert tomllib.loads(dump_settings(settings))["tokens"]["store"]["url"] == "rediss://..."
    assert "hunter2" not in repr(settings) + dump_settings(settings)
    assert "hunter2" not in message({**given_url, "tokens.store.kind": "hunter3"})


def test_members_are_documented() -> None:
    text = describe_settings()
    assert "tokens.issuers[].name (default not set)\n" in text
    assert 'tokens.issuers[].refresh (default "3600s")\n' in text


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        ({"name": "a b", "keys": ["k"]}, "tokens.issuers[0].name (from the command line): must be a host, "),
        ({"keys": ["k"]}, "tokens.issuers[0].name (from the command line): must be there"),
        ({**TABLE, "nmae": "x"}, "tokens.issuers[0].nmae (from the command line): is no member"),
        ({"name": "a"}, "tokens.issuers[0] (from the command line): must have keys, or a directory and type 2"),
        (
            {"name": "a", "directory": "https://a", "types": [1]},
            "tokens.issuers[0] (from the command line): must have",
        ),
        ({**TABLE, "types": []}, "tokens.issuers[0] (from the command line): types must name each type once"),
        ({**TABLE, "types": [2, 3]}, "tokens.issuers[0].types[1] (from the command line): must be 1 or 2"),
        ({**TABLE, "types": [2, 2]}, "tokens.issuers[0] (from the command line): types must name each type once"),
        ({**TABLE, "keys": ["a", 4]}, "tokens.issuers[0].keys[1] (from the command line): must be a path"),
        ({**TABLE, "refresh": "0.5s"}, "tokens.issuers[0].refresh (from the command line): must last 1..604800"),
        ({**TABLE, "directory": "http://a"}, "tokens.issuers[0].directory (from the command line): must be an https"),
        ({**TABLE, "directory": "https://u@a"}, "tokens.issuers[0].directory (from the command line): must be an"),
        ({**TABLE, "directory": "https://a:x"}, "tokens.issuers[0].directory (from the command line): must be an"),
        (7, "tokens.issuers[0] (from the command line): must be a table, not 7"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(table: object, wrong: str) -> None:
    found = message(issuers(table))
    assert found.startswith(wrong)
    assert "\n" not in found


@pytest.mark.parametrize("text", ["7", '{"name": "a"}', "a"])
def test_no_list(text: str) -> None:
    expected = 'tokens.issuers (from the command line): must be a JSON list, like [{"a": 1}, {"a": 2}]'
    assert message({"tokens.issuers": text}) == expected


def test_a_table_that_is_no_list_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('[tokens.issuers]\nname = "a"\n')
    with pytest.raises(SettingsError, match=r"^tokens\.issuers \(from .*\): must be a list$"):
        load_settings(file)


@pytest.mark.parametrize(
    ("overrides", "wrong"),
    [
        ({"tokens.admits": "0"}, "must be "),
        ({"tokens.admits": "session"}, "must be "),
        ({"tokens.context": "rolling"}, "rolling needs the last and not the second"),
        ({"tokens.context": "fixed"}, "fixed needs one of the others"),
        ({"tokens.context_secret": "x"}, "none takes neither of the others"),
        ({"tokens.context": "fixed", "tokens.context_value": "ab"}, "must be 32 bytes as 64 hex digits"),
        ({"tokens.store.kind": "redis"}, "tokens.store.url (default): must be set for kind redis"),
        ({"tokens.window": "0.5"}, "must last 1..2592000 seconds"),
        (issuers(TABLE, TABLE), "must be at most 8, each with a name of its own"),
        (issuers(*[{**TABLE, "name": f"i{number}"} for number in range(9)]), "must be at most 8"),
    ],
)
def test_settings_that_must_fit_each_other(overrides: dict[str, str], wrong: str) -> None:
    found = message(overrides)
    assert wrong in found
    assert "\n" not in found


def test_challenges_have_a_bound() -> None:
    origins = {"tokens.origins": json.dumps(["o" * 250] * 8)}
    load_settings(None, None, {**issuers(TABLE), **origins})
    many = issuers(*[{**TABLE, "name": f"i{number}"} for number in range(8)])
    assert "make challenges of more than 8192 bytes together" in message({**many, **origins})


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_member_loads_or_is_one_readable_line(value: object) -> None:
    for member in ("name", "keys", "directory", "ca_file", "refresh", "types", "other"):
        try:
            load_settings(None, None, issuers({**TABLE, member: value}))
        except SettingsError as error:
            lines = str(error).splitlines()
            assert all(line.startswith("tokens.issuers[0]") for line in lines)
