"""relay.settings: which source wins, what is refused, and in which words."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from relay.settings import (
    BasicEntry,
    Capabilities,
    ScryptCost,
    Settings,
    SettingsError,
    Upstream,
    describe_settings,
    dump_settings,
    encode_basic_entry,
    load_settings,
    parse_basic_entry,
    parse_client_entry,
    parse_duration,
    parse_preshared_entry,
    parse_upstream,
    probe_capabilities,
    redacted,
    require_certificate,
    resolver_upstreams,
    system_upstreams,
    values,
)
from relay.settings.schema import dotted, leaves

DIGEST = "sha256:" + "ab" * 32
USER = encode_basic_entry(BasicEntry("hidden-user", ScryptCost(), b"s" * 16, b"d" * 32))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relay.toml"


def message(
    path: Path | None = None, environ: dict[str, str] | None = None, overrides: dict[str, str] | None = None
) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environ, overrides)
    return str(caught.value)


def test_defaults_need_no_source() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert (settings.listen.host, settings.listen.port) == ("127.0.0.1", 4433)
    assert settings.limits.udp_idle == timedelta(seconds=120)
    assert settings.limits.connection_buffer == 32 * 1024 * 1024
    assert settings.policy.denied_ports == (25,)
    assert not settings.auth.open


def test_file_then_environment_then_command_line(file: Path) -> None:
    file.write_text('identity = "file"\n[listen]\nport = 1\nhost = "::1"\n[limits]\nidle = "2m"\n')
    environ = {"RELAY_IDENTITY": "environment", "RELAY_LISTEN__PORT": "2", "HOME": "ignored"}
    settings = load_settings(file, environ, {"listen.port": "3"})
    assert settings.listen.port == 3
    assert settings.identity == "environment"
    assert settings.listen.host == "::1"
    assert settings.limits.idle == timedelta(minutes=2)


def test_lists_are_json_in_the_environment_and_on_the_command_line() -> None:
    settings = load_settings(
        None, {"RELAY_POLICY__ALLOW": '["127.0.0.0/8", "::1/128"]'}, {"policy.denied_ports": "[25, 465]"}
    )
    assert settings.policy.allow == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert settings.policy.denied_ports == (25, 465)


@pytest.mark.parametrize("text", ["10.0.0.0/8", '"10.0.0.0/8"', "{}", "", "[" * 100_000])
def test_a_list_that_is_no_json_list(text: str) -> None:
    expected = 'must be a JSON list, like ["a", "b"]'
    assert message(None, {"RELAY_POLICY__ALLOW": text}) == f"policy.allow (from RELAY_POLICY__ALLOW): {expected}"


@pytest.mark.parametrize("text", ["25", "25,587"])
def test_a_list_of_numbers_that_is_no_json_list(text: str) -> None:
    expected = "policy.denied_ports (from the command line): must be a JSON list, like [25, 587]"
    assert message(None, None, {"policy.denied_ports": text}) == expected


def test_an_optional_setting_left_empty_is_not_set() -> None:
    settings = load_settings(None, {"RELAY_EGRESS__IPV4": "", "RELAY_TLS__CERTIFICATE": ""})
    assert settings.egress.ipv4 is None
    assert settings.tls.certificate is None


def test_unknown_in_the_environment_with_a_hint() -> None:
    assert message(None, {"RELAY_LISTEN__PROT": "1"}) == (
        "RELAY_LISTEN__PROT (from the environment): is no setting; did you mean RELAY_LISTEN__PORT?"
    )
    assert message(None, {"RELAY_XYZZY": "1"}) == "RELAY_XYZZY (from the environment): is no setting"
    assert "is no setting" in message(None, {"RELAY_LISTEN": "{}"})
    assert "is no setting" in message(None, {"relay_listen__port": "1"})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("prot = 1", "prot"),
        ("[listen]\nprot = 1", "listen.prot"),
        ("[listen.port]\nx = 1", "listen.port.x"),
        ("[nowhere]\n", "nowhere"),
        ("[nowhere.deep]\nx = 1", "nowhere.deep.x"),
    ],
)
def test_unknown_in_the_file(file: Path, text: str, name: str) -> None:
    file.write_text(text)
    found = message(file)
    assert str(file) in found
    assert found.startswith((f"{name} (from", "listen.port (from"))


def test_unknown_on_the_command_line() -> None:
    assert message(None, None, {"listen.prot": "1"}) == (
        "listen.prot (from the command line): is no setting; did you mean listen.port?"
    )
    assert message(None, None, {"listen": "1"}).endswith("is a group of settings; set its members")


def test_every_problem_is_listed(file: Path) -> None:
    file.write_text("[quic]\nengine = 'other'\n")
    found = message(file, {"RELAY_LISTEN__PORT": "70000"}, {"limits.idle": "soon"}).splitlines()
    assert sorted(found) == [
        'limits.idle (from the command line): must be a duration, like 30, "500ms", "30s", "2m" or "1h", not soon',
        "listen.port (from RELAY_LISTEN__PORT): must be 0..65535, not 70000",
        f"quic.engine (from {file}): must be 'qh3' or 'aioquic', not other",
    ]


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("identity", "two words", "must be a structured field token"),
        ("listen.host", "localhost", "must be an IP address"),
        ("listen.port", "-1", "must be 0..65535"),
        ("listen.port", "x", "must be a whole number"),
        ("quic.max_datagram_size", "1200", "must be 1232..1472"),
        ("quic.receive_buffer", "1 parsec", "must be a size"),
        ("quic.send_buffer", "1B", "must be 64.0KiB..256.0MiB"),
        ("auth.open", "perhaps", "must be true or false"),
        ("auth.realm", 'a"b', "must be 1..128 printable"),
        ("policy.allow", '["10.0.0.1/8"]', 'with all host bits zero, like "10.0.0.0/8"'),
        ("policy.deny", '["nowhere"]', "must be a network"),
        ("policy.deny", "[7]", "must be a network"),
        ("policy.denied_ports", "[0]", "must be 1..65535"),
        ("resolver.upstreams", '["dns.example"]', "must be an IP address"),
        ("resolver.timeout", "0", "must last 0.05..60 seconds"),
        ("egress.ipv4", "::1", "must be an IPv4 address"),
        ("egress.ipv6", "1.1.1.1", "must be an IPv6 address"),
        ("limits.streams", "0", "must be 1..65536"),
        ("limits.idle", "true", "must be a duration"),
        ("limits.udp_idle", "0.5", "must last 1..86400 seconds"),
        ("telemetry.level", "loud", "must be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_words_for_wrong_values(name: str, text: str, wrong: str) -> None:
    found = message(None, None, {name: text})
    assert found.startswith(name)
    assert "(from the command line): " in found
    assert wrong in found
    assert "\n" not in found


def test_settings_that_must_fit_each_other() -> None:
    assert message(None, {"RELAY_LIMITS__CONNECTION_BUFFER": "1MiB"}) == (
        "limits.tunnel_buffer (default), limits.connection_buffer (from RELAY_LIMITS__CONNECTION_BUFFER): "
        "the first must not be larger than the second"
    )
    assert message(None, None, {"resolver.max_ttl": "1s"}) == (
        "resolver.min_ttl (default), resolver.max_ttl (from the command line): "
        "the first must not be longer than the second"
    )


@pytest.mark.parametrize("name", ["preshared", "basic"])
def test_no_message_shows_what_authenticates(file: Path, name: str) -> None:
    file.write_text(f'[auth]\n{name} = ["hunter2-secret"]\n')
    found = message(file)
    assert found.startswith(f"auth.{name}[0] (from {file}): must be ")
    assert "hunter2" not in found
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"auth": {name: ["hunter2-secret"]}})
    assert "hunter2" not in str(caught.value)


def test_two_entries_of_one_user() -> None:
    found = message(None, None, {"auth.basic": f'["{USER}", "{USER}"]'})
    assert found == "auth.basic (from the command line): must have one entry per user"


@pytest.mark.parametrize("text", ["true", "false", ""])
def test_debug_addresses_never_from_the_environment(text: str) -> None:
    found = message(None, {"RELAY_TELEMETRY__DEBUG_ADDRESSES": text})
    assert found.startswith("telemetry.debug_addresses (from RELAY_TELEMETRY__DEBUG_ADDRESSES): cannot be set by")


def test_debug_addresses_from_file_and_command_line(file: Path) -> None:
    file.write_text("[telemetry]\ndebug_addresses = true\n")
    assert load_settings(file).telemetry.debug_addresses
    assert load_settings(None, None, {"telemetry.debug_addresses": "true"}).telemetry.debug_addresses


def test_files_that_cannot_be_used(file: Path) -> None:
    assert message(file) == f"{file}: cannot be read: No such file or directory"
    file.write_text("[listen\n")
    assert message(file).startswith(f"{file}: is not valid TOML")
    for text in ("a=" + "[" * 3000, "a=" + "1" * 5000):
        file.write_text(text)
        assert message(file) == f"{file}: has a value that is too long or too deep"
    file.write_bytes(b"\xff")
    assert message(file) == f"{file}: is not UTF-8 text"
    file.write_text("listen = 3\n")
    assert message(file) == f"listen (from {file}): is a group of settings; set its members"


def test_constructing_settings_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY", "left-behind")
    monkeypatch.setenv("RELAY_IDENTITY", "left-behind")
    assert Settings().identity == "masque-relay"


def test_the_tree_is_frozen_and_shows_no_credentials() -> None:
    settings = load_settings(None, None, {"auth.preshared": f'["{DIGEST}"]', "auth.basic": f'["{USER}"]'})
    with pytest.raises(ValidationError):
        settings.listen.port = 1  # type: ignore[misc]
    assert "abab" not in repr(settings)
    assert "hidden-user" not in repr(settings)


def test_the_certificate_is_needed_to_serve() -> None:
    settings = load_settings(None, None, {"tls.certificate": "cert.pem"})
    with pytest.raises(SettingsError, match=r"^tls\.private_key \(not set\): must name a PEM file to serve$"):
        require_certificate(settings)
    settings = load_settings(None, None, {"tls.certificate": "cert.pem", "tls.private_key": "key.pem"})
    assert require_certificate(settings) == (Path("cert.pem"), Path("key.pem"))


def test_the_dump_is_what_was_loaded_without_secrets(file: Path) -> None:
    overrides = {"policy.allow": '["127.0.0.0/8"]', "egress.ipv4": "192.0.2.1", "limits.idle": "90"}
    settings = load_settings(None, None, overrides)
    file.write_text(dump_settings(settings))
    assert load_settings(file) == settings
    secret = settings.model_copy(
        update={"auth": settings.auth.model_copy(update={"preshared": (DIGEST,), "basic": (USER,)})}
    )
    text = dump_settings(secret)
    assert tomllib.loads(text)["auth"]["preshared"] == ["sha256:abababab..."]
    assert tomllib.loads(text)["auth"]["basic"] == ["<1 entry>"]
    assert redacted(secret)["auth.basic"] == ["<1 entry>"]
    assert "hidden-user" not in text + str(redacted(secret))


def test_every_setting_is_documented() -> None:
    text = describe_settings()
    for path, info in leaves().items():
        assert info.description, dotted(path)
        assert dotted(path) in text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(30, 30), (0.5, 0.5), ("30", 30), ("500ms", 0.5), (" 2 m ", 120), ("1h", 3600), ("1d", 86400), ("1.5s", 1.5)],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value", [-1, True, None, "", "s", "1 hour", "-1s", "1e3", "PT1H", float("nan"), float("inf")]
)
def test_no_durations(value: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(value)


def problem_of(parse: Callable[[], object]) -> str:
    """Return the text of the error that is allowed, or nothing."""
    try:
        parse()
    except (ValueError, SettingsError) as error:
        return str(error)
    return ""


OUR_WORDS = Path(values.__file__).read_text(encoding="utf-8")


@given(st.text(max_size=80))
def test_value_parsers_raise_only_value_errors_that_do_not_quote(text: str) -> None:
    for parse in (parse_duration, parse_upstream, parse_preshared_entry, parse_basic_entry, parse_client_entry):
        found = problem_of(partial(parse, text))
        assert len(text) < 4 or text not in found or text in OUR_WORDS


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=20), min_size=1, max_size=4))
def test_no_made_up_variable_is_silent(environ: dict[str, str]) -> None:
    prefixed = {f"RELAY_?{name}": value for name, value in environ.items()}
    assert problem_of(partial(load_settings, None, prefixed)).count("is no setting") == len(prefixed)


@given(st.sampled_from(sorted(dotted(path) for path in leaves())), st.text(max_size=30))
def test_any_value_of_any_setting_loads_or_is_a_settings_error(name: str, text: str) -> None:
    found = problem_of(partial(load_settings, None, None, {name: text}))
    assert not found or found.startswith(name.partition(".")[0])


@pytest.mark.parametrize(
    "entry",
    [
        "ann",
        "ann:scrypt:1000,8,1:" + "s" * 22 + ":" + "d" * 43,
        "ann:scrypt:1024,0,1:" + "s" * 22 + ":" + "d" * 43,
        "ann:scrypt:1048576,32,1:" + "s" * 22 + ":" + "d" * 43,
        "ann:scrypt:1024,8,1:" + "s" * 21 + ":" + "d" * 43,
        "ann:bcrypt:1024,8,1:" + "s" * 22 + ":" + "d" * 43,
    ],
)
def test_entries_with_an_impossible_form_or_cost(entry: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_basic_entry(entry)


def test_upstreams_of_the_system(tmp_path: Path) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("# comment\nsearch example\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver x\n")
    expected = (Upstream(ip_address("192.0.2.1")), Upstream(ip_address("2001:db8::1")))
    assert system_upstreams(resolv) == expected
    assert resolver_upstreams(Settings(), resolv) == expected
    chosen = load_settings(None, None, {"resolver.upstreams": '["192.0.2.9:54"]'})
    assert resolver_upstreams(chosen, resolv) == (Upstream(ip_address("192.0.2.9"), 54),)
    assert system_upstreams(tmp_path / "missing") == ()
    with pytest.raises(SettingsError, match=r"resolver\.upstreams \(default\): must name a resolver"):
        resolver_upstreams(Settings(), tmp_path / "missing")


def test_the_probe_is_stable_and_its_answers_are_facts() -> None:
    found = probe_capabilities()
    assert isinstance(found, Capabilities)
    assert found == probe_capabilities()
    assert all(isinstance(getattr(found, name), bool) for name in ("gso", "gro", "ipv6", "reuseport"))


def test_the_probe_says_no_where_sockets_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(97, "not here")

    monkeypatch.setattr("socket.socket", refuse)
    assert probe_capabilities() == Capabilities(gso=False, gro=False, ipv6=False, reuseport=False)


def test_client_entries() -> None:
    digits = "AB:" * 31 + "cd"
    assert parse_client_entry(f"first-hop=sha256:{digits}") == ("first-hop", bytes([0xAB] * 31 + [0xCD]))
    assert parse_client_entry(f"a=sha256:{'0f' * 32}") == ("a", bytes([0x0F] * 32))
    assert parse_client_entry("others=*") == ("others", None)
    for wrong in (
        "",
        "=*",
        "a",
        "a=",
        "A=*",
        f"a=sha256:{'0f' * 31}",
        f"a=sha256:{'0f' * 33}",
        f"a={'0f' * 32}",
        "a=**",
    ):
        with pytest.raises(ValueError, match=r'^must be "name=sha256:"'):
            parse_client_entry(wrong)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"quotas.rate": "fast"}, "quotas.rate (from the command line): must be a number, not fast"),
        ({"quotas.rate": "nan"}, "quotas.rate (from the command line): must be 0.001..100000, not nan"),
        ({"quotas.tunnels": "0"}, "quotas.tunnels (from the command line): must be 1..10000000, not 0"),
        (
            {"quotas.burst": "2"},
            "quotas.burst (from the command line), quotas.rate (default): the first has no effect without the second",
        ),
        ({"quotas.bytes": "1"}, "quotas.bytes (from the command line): must be 1KiB or more, not 1"),
        (
            {"quotas.overrides": "{}"},
            'quotas.overrides (from the command line): must be a JSON list, like [{"a": 1}, {"a": 2}]',
        ),
        (
            {"tls.client_certificates": "optional", "quotas.tunnels": "5"},
            "tls.client_ca (default): must name a PEM file when clients are asked for certificates",
        ),
        (
            {"tls.client_ca": "x.pem"},
            "tls.client_certificates (default), tls.client_ca (from the command line), tls.clients (default): "
            "the first is off, so the others do nothing",
        ),
        (
            {"tls.client_certificates": "required", "tls.client_ca": "x.pem"},
            "tls.client_certificates (from the command line), quic.engine (default): "
            "qh3 cannot ask clients for certificates; the engine aioquic can",
        ),
        (
            {
                "quic.engine": "aioquic",
                "tls.client_certificates": "required",
                "tls.client_ca": "x",
                "tls.clients": "[1]",
            },
            "tls.clients[0] (from the command line): must be text, not 1",
        ),
        (
            {
                "quic.engine": "aioquic",
                "tls.client_certificates": "required",
                "tls.client_ca": "x",
                "tls.clients": '["a=*", "b=*"]',
            },
            "tls.clients (from the command line): must have one entry per certificate",
        ),
    ],
)
def test_mistakes_in_quotas_and_client_certificates(given: dict[str, str], expected: str) -> None:
    assert message(None, None, given) == expected


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('"x"', "[0] (from the command line): must be a table, not x"),
        ('{"tunnels": 1}', "[0] (from the command line): must name either a principal or a scheme"),
        ('{"principal": "a", "scheme": "basic", "rate": 1}', "[0] (from the command line): must name either"),
        ('{"principal": "", "rate": 1}', "[0] (from the command line): must name a principal that is not empty"),
        ('{"principal": "a"}', "[0] (from the command line): must set one of tunnels, rate, burst and bytes"),
        ('{"principal": "a", "tunnel": 1}', "[0].tunnel (from the command line): is no member"),
        ('{"principal": "a", "tunnels": "many"}', "[0].tunnels (from the command line): must be a whole number"),
        ('{"scheme": "magic", "tunnels": 1}', "[0].scheme (from the command line): must be 'open', 'preshared'"),
        ('{"principal": "a", "rate": 1}, {"principal": "a", "bytes": "1GiB"}', " (from the command line): must have"),
        ('{"principal": "a", "burst": 1}', " (from the command line): burst has no effect without rate"),
    ],
)
def test_mistakes_in_tables_say_where(table: str, expected: str) -> None:
    assert message(None, None, {"quotas.overrides": f"[{table}]"}).startswith(f"quotas.overrides{expected}")


def test_tables_of_every_source_come_out_as_they_went_in(file: Path) -> None:
    file.write_text(
        "[[quotas.overrides]]\nprincipal = 'preshared-1'\ntunnels = 'unlimited'\nbytes = '5GiB'\n"
        "[[quotas.overrides]]\nscheme = 'basic'\nrate = 0.5\n"
    )
    text = '[{"principal": "preshared-1", "tunnels": "unlimited", "bytes": "5GiB"}, {"scheme": "basic", "rate": 0.5}]'
    settings = load_settings(file)
    assert load_settings(None, {"RELAY_QUOTAS__OVERRIDES": text}) == settings
    assert load_settings(None, None, {"quotas.overrides": text}) == settings
    dumped = dump_settings(settings)
    assert '{principal = "preshared-1", tunnels = "unlimited", bytes = 5368709120}' in dumped
    file.write_text(dumped)
    assert load_settings(file) == settings
