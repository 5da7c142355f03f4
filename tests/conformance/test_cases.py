"""The conformance cases themselves: our relay passes all, and each broken relay fails the right ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.conformance import ALL_CASES, Case, Need, Verdict
from relay.conformance.driver import Feature
from tests.conformance.broken_relay import FAULTS
from tests.conformance.stage import Theatre, opened_theatre
from tests.e2e.rig import ENGINES

pytestmark = pytest.mark.anyio

_HASTE = 2.5
"Seconds of patience where many cases wait in vain."
_PATIENCE = 10.0
"Seconds where none does: a busy machine is no fault of the relay."
_WAITING = {"wrong-context-id", "capsules-ignored", "end-swallowed", "wrong-reset-code"}
"Faults that let cases wait in vain."
_LARGE = {"tcp-download", "tcp-upload"}
"Left to `make interop`: they take seconds."
_OWN_RELAY = {case.name for case in ALL_CASES if Need.DRAIN in case.needs or Need.IDLE in case.needs}
_ELSEWHERE = {Feature.PAGES, Feature.TOKENS}
"Of cases that have tests of their own."
_SHARED = [case for case in ALL_CASES if case.name not in _OWN_RELAY | _LARGE and not case.features & _ELSEWHERE]
_UDP = {case.name for case in ALL_CASES if Need.UDP in case.needs}


@pytest.fixture
async def theatre(tmp_path: Path) -> AsyncIterator[Theatre]:
    """Origins and a resolver."""
    async with opened_theatre(tmp_path) as opened:
        yield opened


def test_every_case_says_what_it_proves_and_where_that_is_demanded() -> None:
    assert len({case.name for case in ALL_CASES}) == len(ALL_CASES)
    for case in ALL_CASES:
        assert case.proves[:1].isupper(), case.name
        assert case.source.startswith("RFC "), case.name
        assert "§" in case.source, case.name


@pytest.mark.parametrize("engine", ENGINES)
async def test_our_relay_passes_what_one_relay_can_play(theatre: Theatre, engine: str) -> None:
    async with theatre.relay({"quic.engine": engine}) as relay:
        outcomes = await theatre.play_all(relay, _SHARED)
    failed = {outcome.case.name: outcome.reason for outcome in outcomes if outcome.verdict is not Verdict.PASS}
    assert not failed


@pytest.mark.parametrize("case", [case for case in ALL_CASES if case.name in _OWN_RELAY], ids=lambda case: case.name)
async def test_our_relay_passes_what_needs_a_relay_of_its_own(theatre: Theatre, case: Case) -> None:
    async with theatre.relay(dict(case.settings)) as relay:
        outcome = await theatre.play(relay, case)
    assert (outcome.verdict, outcome.reason) == (Verdict.PASS, "")


_UNAUTHORIZED = {f"{kind}-{what}-credentials" for kind in ("tcp", "udp") for what in ("no", "wrong")}
_ECHOES = {
    *("udp-echo", "udp-sizes", "udp-largest", "udp-too-large", "udp-ipv6", "udp-name", "udp-many", "udp-early"),
    *("udp-end", "udp-unknown-context", "capsule-in", "capsule-unknown", "migration-udp", "http3-inside"),
}
"Cases that fail when no payload comes back in a DATAGRAM frame."
_REASONS = {
    *(f"{kind}-{what}" for kind in ("tcp", "udp") for what in ("missing-name", "forbidden")),
    *_UNAUTHORIZED,
    *("tcp-refused-port", "unknown-protocol", "bad-target-port"),
}
"Cases that fail when a refusal does not say why."
_EXPECTED: dict[str, set[str]] = {
    "wrong-context-id": _ECHOES,
    "no-datagram-setting": {"settings"},
    "capsules-ignored": {"capsule-in", "capsule-only", "capsule-unknown", "cut-capsule"},
    "unknown-capsules-refused": {"capsule-unknown"},
    "no-capsule-protocol": {"udp-echo"},
    "end-swallowed": {"tcp-half-close-client", "tcp-half-close-origin"},
    "wrong-status": _REASONS,
    "wrong-reset-code": {"tcp-reset-origin"},
}


def _cases_for(fault: str) -> list[Case]:
    """The cases that the fault touches, and a few that it must not."""
    if fault in {"end-swallowed", "wrong-reset-code"}:
        return [case for case in _SHARED if case.name.startswith("tcp-")]
    if fault == "wrong-status":
        return [case for case in _SHARED if case.name in _REASONS | {"tcp-echo", "udp-echo", "malformed-request"}]
    return [case for case in _SHARED if case.name in _UDP | {"settings", "tcp-echo"}]


@pytest.mark.parametrize("fault", _EXPECTED)
async def test_a_broken_relay_fails_the_right_cases(theatre: Theatre, fault: str) -> None:
    async with theatre.relay({}, ("tests.conformance.broken_relay", fault)) as relay:
        patience = _HASTE if fault in _WAITING else _PATIENCE
        outcomes = await theatre.play_all(relay, _cases_for(fault), patience)
    assert {outcome.case.name for outcome in outcomes if outcome.verdict is Verdict.FAIL} == _EXPECTED[fault]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"auth.open": "true"}, _UNAUTHORIZED),
        ({"policy.allow": '["127.0.0.0/8", "::1/128"]'}, {"udp-forbidden", "tcp-forbidden"}),
    ],
    ids=["open", "unrestricted"],
)
async def test_a_careless_relay_fails_the_right_cases(
    theatre: Theatre, setting: dict[str, str], expected: set[str]
) -> None:
    async with theatre.relay(setting) as relay:
        outcomes = await theatre.play_all(relay, _cases_for("wrong-status"), _PATIENCE)
    assert {outcome.case.name for outcome in outcomes if outcome.verdict is Verdict.FAIL} == expected


async def test_without_settings_no_client_gets_anywhere(theatre: Theatre) -> None:
    cases = [case for case in _SHARED if case.name in {"settings", "tcp-echo", "udp-echo"}]
    async with theatre.relay({}, ("tests.conformance.broken_relay", "no-settings")) as relay:
        outcomes = await theatre.play_all(relay, cases, 1.0)
    assert {outcome.reason for outcome in outcomes} == {"timeout: no handshake and SETTINGS in time"}


async def test_without_goaway_a_drain_is_noticed(theatre: Theatre) -> None:
    (case,) = (case for case in ALL_CASES if case.name == "goaway")
    async with theatre.relay({"limits.drain": "1"}, ("tests.conformance.broken_relay", "no-goaway")) as relay:
        outcome = await theatre.play(relay, case, _HASTE)
    assert outcome.verdict is Verdict.FAIL


def test_every_fault_is_tried() -> None:
    assert FAULTS.keys() == _EXPECTED.keys() | {"no-settings", "no-goaway"}
