"""relay.egress: pools of settings and files, what contradicts itself, reloads, the geofeed, and the command."""

from __future__ import annotations

import csv
import json
import socket
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from masque.geo import Location
from relay.cli import main
from relay.egress import Egress, EgressPlan, SourceTable, bind_status, encode_geofeed, load_plan
from relay.egress.nearest import Grade, Nearest, grade_pool
from relay.settings import EgressSettings, Settings, SettingsError, dump_settings, load_settings

pytestmark = pytest.mark.anyio

A: dict[str, Any] = {"name": "a", "addresses": ["192.0.2.0/31", "2001:db8::/64"]}
B: dict[str, Any] = {
    "name": "b",
    "addresses": ["198.51.100.7 40000-40999"],
    "country": "de",
    "region": "de-be",
    "city": "Berlin",
}


def plan_of(*pools: dict[str, Any], **more: object) -> EgressPlan:
    return load_plan(EgressSettings.model_validate({"pools": pools, **more}), SourceTable(10.0))


def test_networks_become_sources() -> None:
    plan = plan_of(A, {**B, "ports": "1000-1999", "addresses": [*B["addresses"], "198.51.100.8"]})
    shown = [(str(source.network), source.ports and str(source.ports)) for source in plan.sources]
    assert shown == [
        ("192.0.2.0/32", None),
        ("192.0.2.1/32", None),
        ("2001:db8::/64", None),
        ("198.51.100.7/32", "40000-40999"),
        ("198.51.100.8/32", "1000-1999"),
    ]
    assert [str(network) for network in plan.own_addresses()] == [
        "192.0.2.0/31",
        "198.51.100.7/32",
        "198.51.100.8/32",
        "2001:db8::/64",
    ]
    assert plan.pools[1].location == Location("DE", "DE-BE", "berlin")
    assert (plan.default, plan.is_located) == (plan.pools[0], True)


@pytest.mark.parametrize(
    ("pools", "more", "complaint"),
    [
        ([A, A], {}, "egress pool a: the name is used twice"),
        ([A], {"default": "b"}, "egress.default: there is no pool b"),
        ([], {"default": "b"}, "egress.default: there is no pool b"),
        ([A, {**B, "addresses": ["192.0.2.1"]}], {}, "egress pool b: 192.0.2.1/32 is in a already"),
        ([A, {**B, "addresses": ["2001:db8::7"]}], {}, "egress pool b: 2001:db8::7/128 is in a already"),
        ([{**A, "addresses": ["10.0.0.0/8"]}], {}, "egress pool a: 10.0.0.0/8 has more than 4096 addresses"),
        (
            [{**A, "addresses": ["10.0.0.0/20", "10.1.0.1"]}],
            {},
            "egress pool a: has more than 4096 addresses of one family",
        ),
        (
            [B, {**B, "name": "c", "addresses": ["198.51.100.7 40999-41000"]}],
            {},
            "egress pool c: 198.51.100.7/32 is in b already",
        ),
        (
            [B, {"name": "c", "addresses": ["198.51.100.7 41000-41001"]}],
            {},
            "egress pool c: 198.51.100.7/32 is in b, elsewhere",
        ),
        (
            [{**A, "principals": ["p"]}, {**B, "principals": ["p"]}],
            {},
            "egress pools: the principal p is in two of them",
        ),
    ],
)
def test_pools_that_contradict_themselves(
    pools: list[dict[str, Any]], more: dict[str, object], complaint: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        plan_of(*pools, **more)
    assert str(refused.value) == complaint


def test_relays_share_an_address_by_slices_of_ports() -> None:
    plan = plan_of(B, {**B, "name": "c", "addresses": ["198.51.100.7 41000-41001"]})
    assert len({source.seed for source in plan.sources}) == 2
    assert plan.own_addresses() == (ip_network("198.51.100.7"),)


def test_a_file_in_either_language_adds_pools_and_quarantine(tmp_path: Path) -> None:
    document = {"quarantine": ["192.0.2.1/32"], "pools": [B]}
    (tmp_path / "pools.json").write_text(json.dumps(document))
    (tmp_path / "pools.toml").write_text(
        'quarantine = ["192.0.2.1/32"]\n[[pools]]\nname = "b"\ncountry = "de"\nregion = "de-be"\ncity = "Berlin"\n'
        'addresses = ["198.51.100.7 40000-40999"]\n'
    )
    for name in ("pools.json", "pools.toml"):
        plan = plan_of(A, file=tmp_path / name)
        assert [pool.name for pool in plan.pools] == ["a", "b"]
        assert [str(source.network) for source in plan.sources if not source.is_up] == ["192.0.2.1/32"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("pools = 1", "pools: must be a list"),
        ("x = 1", "x: is no member"),
        ("", "is empty"),
        ('quarantine = ["192.0.2.1"]', "has no pools, and the settings have none"),
        ('[[pools]]\nname = "a"\n', "pools[0].addresses: must be there"),
        ('[[pools]]\nname = "a"\naddresses = ["x"]\n', "pools[0].addresses[0]: must be an address, or a network"),
        ('quarantine = ["192.0.2.1/24"]', "quarantine[0]: must be a network with all host bits zero"),
        ("pools = [", "is not valid TOML"),
    ],
)
def test_a_file_that_is_wrong_is_one_line_for_each_problem(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "pools.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        plan_of(file=path)
    assert str(refused.value).startswith(f"egress.file: {path}")
    assert complaint in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xff")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, complaint in (
        ("none", "cannot read"),
        ("latin", "is not UTF-8"),
        ("list.json", "must hold pools"),
        ("deep.json", "is not valid JSON"),
    ):
        with pytest.raises(SettingsError, match=complaint):
            plan_of(A, file=tmp_path / name)
    (tmp_path / "pools.json").write_text(json.dumps({"pools": [A]}))
    with pytest.raises(SettingsError, match=r"egress\.ipv4, egress\.ipv6: cannot be set"):
        plan_of(ipv4="192.0.2.9", file=tmp_path / "pools.json")


async def test_a_reload_keeps_what_is_known_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pools.json"
    path.write_text(json.dumps({"pools": [A]}))
    egress = Egress(EgressSettings(file=path))
    first = next(egress.plan.sources)
    first.tunnels = 3
    path.write_text(json.dumps({"pools": [{**A, "name": "z"}, B], "quarantine": ["192.0.2.0/32"]}))
    await egress.reload()
    assert next(egress.plan.sources) is first
    assert (first.tunnels, first.state) == (3, "quarantined")
    plan = egress.plan
    path.write_text("{")
    with pytest.raises(SettingsError):
        await egress.reload()
    assert egress.plan is plan
    assert first.state == "quarantined"
    path.write_text(json.dumps({"pools": [A]}))
    await egress.reload()
    states = [first.state.value]
    assert states == ["in service"]


def test_settings_with_pools_are_shown_as_they_can_be_read() -> None:
    settings = load_settings(None, {}, {"egress.pools": json.dumps([A, {**B, "city": "Görlitz"}])})
    shown: dict[str, Any] = tomllib.loads(dump_settings(settings))
    assert shown["egress"]["pools"][1] == {**B, "country": "DE", "region": "DE-BE", "city": "Görlitz"}
    assert Settings.model_validate({"egress": {"pools": shown["egress"]["pools"]}}).egress == settings.egress
    with pytest.raises(SettingsError, match=r"egress\.pools \(from the command line\): set the first two or pools"):
        load_settings(None, {}, {"egress.pools": json.dumps([A]), "egress.ipv4": "192.0.2.9"})


def test_grades() -> None:
    berlin, brandenburg = Location("DE", "DE-BE", "berlin", "u33d"), Location("DE", "DE-BB")
    for pool, wanted, grade in (
        (berlin, Location("DE", "DE-BE", "berlin"), Grade.PLACE),
        (berlin, Location("DE", None, "berlin"), Grade.PLACE),
        (berlin, Location("DE", "DE-BB", "berlin"), Grade.FAR),
        (berlin, Location("DE", "DE-BE", "potsdam"), Grade.REGION),
        (brandenburg, Location("DE", "DE-BB", "potsdam"), Grade.REGION),
        (Location("DE"), Location("DE", "DE-BB", "potsdam"), Grade.COUNTRY),
        (brandenburg, Location("DE"), Grade.FAR),
        (berlin, Location("PL", geohash="u33d"), Grade.ELSEWHERE),
        (berlin, Location(geohash="u33e"), Grade.PLACE),
        (berlin, Location(geohash="u281"), Grade.ELSEWHERE),
        (Location(), Location("DE"), Grade.ELSEWHERE),
    ):
        assert grade_pool(pool, wanted, 250)[0] is grade
    assert grade_pool(berlin, Location("DE", geohash="u281"), 600)[0] is Grade.PLACE


def test_clients_cannot_make_the_relay_remember_more_and_more() -> None:
    nearest = Nearest(plan_of(B).pools, 250, other_countries=False)
    for number in range(3000):
        assert nearest.find(Location("DE", city=f"city {number}"), 4) is not None
    assert len(nearest._known) == 128


def test_the_geofeed_is_what_rfc_8805_wants() -> None:
    pools: list[dict[str, Any]] = [
        {"name": "w", "country": "DE", "city": 'Weil, "am Rhein"', "addresses": ["203.0.113.4", "2001:db8:1::/64"]},
        {"name": "b1", **{k: v for k, v in B.items() if k != "name"}},
        {**B, "name": "b2", "addresses": ["198.51.100.6", "198.51.100.4/31", "198.51.100.7 50000-50001"]},
        A,
        {"name": "g", "country": "DE", "region": "DE-SN", "city": "Görlitz", "addresses": ["192.0.2.9"]},
    ]
    text = encode_geofeed(plan_of(*pools).pools)
    assert text.isprintable() or "\n" in text
    rows = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))
    assert rows == [
        ["192.0.2.0/31", "", "", "", ""],
        ["192.0.2.9/32", "DE", "DE-SN", "Görlitz", ""],
        ["198.51.100.4/30", "DE", "DE-BE", "Berlin", ""],
        ["203.0.113.4/32", "DE", "", 'Weil, "am Rhein"', ""],
        ["2001:db8::/64", "", "", "", ""],
        ["2001:db8:1::/64", "DE", "", 'Weil, "am Rhein"', ""],
    ]


def test_the_command_lists_checks_and_prints_the_feed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pools.json"
    document = {
        "quarantine": ["127.0.0.9/32"],
        "pools": [{**B, "addresses": ["127.0.0.8/31"], "principals": ["preshared-1"]}],
    }
    file.write_text(json.dumps(document))
    options = [f"--set=egress.file={file}", f"--set=egress.status={tmp_path / 'status'}"]
    assert main(["egress", "list", *options]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "b: DE, DE-BE, Berlin (default; for preshared-1)",
        "  127.0.0.8                                all ports    in service",
        "  127.0.0.9                                all ports    quarantined",
        f"# load and lost addresses are not known: no relay answers at {tmp_path / 'status'}",
    ]
    assert main(["egress", "geofeed", *options]) == 0
    assert capsys.readouterr().out.endswith("\n127.0.0.8/31,DE,DE-BE,Berlin,\n")
    file.write_text(json.dumps({"pools": [{"name": "c", "addresses": ["198.51.100.1", "2001:db8::1"]}]}))
    assert main(["egress", "check", *options]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "198.51.100.1/32: no interface of this machine has it",
        "2001:db8::1/128: no interface of this machine has it",
        "0 of 2 can be used; nobody outside was asked",
    ]
    assert main(["egress", "check"]) == 0
    assert capsys.readouterr().out == "no egress addresses are set: the system chooses\n"
    assert main(["egress", "check", *options, "--via", "name.example:1"]) == 2
    assert capsys.readouterr().err == "relay: --via: must have an IP address, not name.example\n"
    assert main(["egress", "list", "--set=egress.default=x"]) == 2


def test_a_socket_of_others_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(SettingsError, match=r"egress\.status: .* is in use"):
            bind_status(path)
        assert path.is_socket()


def test_a_status_socket_that_cannot_be(tmp_path: Path) -> None:
    with bind_status(tmp_path / "status") as sock:
        sock.listen()
        with pytest.raises(SettingsError, match="is in use"):
            bind_status(tmp_path / "status")
    for path in (tmp_path / "none" / "status", tmp_path / ("x" * 200)):
        with pytest.raises(SettingsError, match=r"egress\.status: cannot use"):
            bind_status(path)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(SettingsError, match=r"egress\.status: cannot use"):
        bind_status(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"
