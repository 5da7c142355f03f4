"""The proof of egress, small: an origin in another network namespace sees who came, and what the operator changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from interop.egress.client import KINDS
from interop.egress.origin import TCP_PORT
from interop.egress.report import judge
from interop.egress.site import ORIGIN4, ORIGIN6, Site, SiteError, make_site, run
from interop.egress.stage import HINTS, Stage, set_stage

pytestmark = pytest.mark.slow

ADDRESSES = 12
SESSIONS = 40


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    try:
        with (
            make_site(ADDRESSES) as site,
            set_stage(site, tmp_path_factory.mktemp("stage"), limits__drain="0s") as made,
        ):
            yield made
    except SiteError as error:
        pytest.skip(str(error))


def kept(before: list[dict[str, Any]], after: list[dict[str, Any]], gone: str) -> bool:
    """Whether exactly the sessions of an address moved, and only their IPv4 tunnels."""
    for old, new in zip(before, after, strict=True):
        for kind in KINDS:
            if (new[kind] != old[kind]) != (old[kind] == gone):
                return False
    return True


def test_the_origin_sees_the_addresses_chosen_and_the_operator_can_change_them(stage: Stage) -> None:
    seen = stage.order(sessions=SESSIONS, hints=HINTS)
    again = stage.order(more=True)
    assert judge(stage.site, seen, again)[1] == []
    tunnels = sum(state["tunnels"] for state in stage.states().values())
    assert tunnels == 2 * SESSIONS * len(KINDS)

    first = seen[0]["tcp4"]
    stage.reload([f"{first}/32"])
    moved = stage.order(more=True)
    assert kept(seen, moved, first)

    lost = moved[0]["tcp4"]
    run(*stage.site.relay, "ip", "address", "del", f"{lost}/32", "dev", "wire")
    without = stage.order(more=True)
    assert kept(moved, without, lost)
    states = stage.states()
    assert (states[f"{first}/32"]["state"], states[f"{lost}/32"]["state"]) == ("quarantined", "lost")

    run(*stage.site.relay, "ip", "address", "add", f"{lost}/32", "dev", "wire")
    eventually(lambda: stage.order(more=True) == without and stage.states()[f"{lost}/32"]["state"] == "in service")

    (refused,) = stage.order(sessions=1, hints=["u281-AT"])
    for kind in KINDS:
        assert refused[kind]["status"] == 503
        assert 'details="location_unavailable"' in refused[kind]["proxy_status"]


def check(stage: Stage, patience: float = 5.0) -> tuple[int, str]:
    """Run `relay egress check` where the relay is, with the origin to answer."""
    via = [f"--via={ORIGIN4}:{TCP_PORT}", f"--via=[{ORIGIN6}]:{TCP_PORT}"]
    file = f"--set=egress.file={stage.folder / 'pools.toml'}"
    options = [f"--timeout={patience}", *via, file]
    command = [*stage.site.relay, sys.executable, "-m", "relay", "egress", "check", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_check_says_which_address_is_not_routed(stage: Stage) -> None:
    count = ADDRESSES + 2
    assert check(stage) == (0, f"{count} of {count} can be used\n")
    network, last = stage.site.networks[0], stage.site.addresses[-1]
    run(*stage.site.relay, "ip", "-6", "route", "del", "local", network, "dev", "lo")
    run(*stage.site.origin, "ip", "route", "add", "blackhole", f"{last}/32")
    try:
        code, text = check(stage, 0.5)
    finally:
        run(*stage.site.relay, "ip", "-6", "route", "add", "local", network, "dev", "lo")
        run(*stage.site.origin, "ip", "route", "del", "blackhole", f"{last}/32")
    assert code == 1
    assert text.splitlines() == [
        f"{network}: answers would not be taken: ip -6 route add local {network} dev lo",
        f"{last}/32: no answer from {ORIGIN4} port {TCP_PORT}: is the address routed to this machine?",
        f"{count - 2} of {count} can be used",
    ]


def eventually(fact: Callable[[], bool]) -> None:
    """Try a few times: each try waits for tunnels, so this is no busy loop."""
    assert any(fact() for _ in range(40))


def test_namespaces_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SiteError, match="root"), make_site(1):
        pass


def test_no_namespace_and_no_process_stays_behind(stage: Stage) -> None:
    made: list[Site] = []
    with suppress(ZeroDivisionError), make_site(1) as site:
        made.append(site)
        raise ZeroDivisionError
    for enter in (made[0].relay, made[0].origin):
        assert not Path(enter[1].removeprefix("--net=")).exists()
    assert os.path.exists(stage.site.relay[1].removeprefix("--net="))
