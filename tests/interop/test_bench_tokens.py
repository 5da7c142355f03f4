"""The rows of tokens: the load answers its orders, by real checks and real tunnels."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.bench.processes import Child
from interop.bench.token_load import token_settings, write_keys
from relay.settings import TokenSettings

SHORT = {"seconds": 0.05, "tokens": 2, "core": min(os.sched_getaffinity(0))}


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    folder = tmp_path_factory.mktemp("tokens")
    write_keys(folder)
    command = [sys.executable, "-m", "interop.bench.token_load", str(folder)]
    with Child("load", command, None, folder) as child:
        yield child


def ask(generator: Child, **order: Any) -> dict[str, Any]:
    generator.write_line(json.dumps({**SHORT, **order}))
    answer: dict[str, Any] = json.loads(generator.read_line(20.0))
    return answer


@pytest.mark.parametrize(("token_type", "store"), [(2, "memory"), (2, "sqlite"), (1, "memory")])
def test_checks_are_made_and_counted(generator: Child, token_type: int, store: str) -> None:
    answer = ask(generator, load="checks", type=token_type, store=store)
    assert answer["work"] == answer["offered"] > 0
    assert answer["proxy_cpu"] > 0


def test_the_loop_s_delay_is_measured_while_tokens_are_checked(generator: Child) -> None:
    answer = ask(generator, load="delay", type=2, store="memory", rate=500)
    assert 0 < answer["p50"] <= answer["p99"] < 1
    assert answer["checks"] > 0


def test_an_order_that_fails_is_told_and_the_next_one_answered(generator: Child) -> None:
    assert "error" in ask(generator, load="checks", type=2, store="redis://127.0.0.1:1/0")
    assert "work" in ask(generator, load="checks", type=2, store="memory")


@pytest.mark.parametrize("store", ["memory", "sqlite", "redis://127.0.0.1:1/0"])
def test_the_settings_are_settings(tmp_path: Path, store: str) -> None:
    settings = TokenSettings.model_validate(token_settings(tmp_path, 2, store))
    assert settings.store.kind == store.partition(":")[0]
