"""The documents: links lead somewhere, commands parse, examples load, lists are complete, settings are today's."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from docs.generate import render_settings
from masque.head import RequestHead
from masque.target import parse_target
from relay.cli import make_parser
from relay.errors import FailureKind, Side
from relay.hooks import AuthScheme, ConnectionContext, ExchangeContext, HookChain, Principal, Reject, TunnelKind
from relay.outcome import Outcome
from relay.settings import Settings, load_settings
from relay.settings.schema import branches, dotted, leaves
from relay.telemetry import LimitName, Metric

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
SHELL = ("sh", "ini")


def _blocks(page: Path, *languages: str) -> list[str]:
    found: list[str] = []
    language: str | None = None
    lines: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            if language is None:
                language, lines = line[3:].strip(), []
            else:
                if language in languages:
                    found.append("\n".join(lines) + "\n")
                language = None
        elif language is not None:
            lines.append(line)
    assert language is None, "a fence without its end"
    return found


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def _all(*languages: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for number, block in enumerate(_blocks(page, *languages)):
            yield f"{page.name}-{number}", block


def _cases(*languages: str) -> list[object]:
    return [pytest.param(block, id=name) for name, block in _all(*languages)]


def _command_lines() -> list[str]:
    """Every shell line, and every command in backticks."""
    lines = [line for _, block in _all(*SHELL) for line in block.splitlines()]
    for page in PAGES:
        lines += re.findall(r"`([^`\n]+)`", _prose(page))
    return lines


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line.removeprefix("ExecStart="), comments=True)
    except ValueError:
        return []
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0], re.S):
        del words[0]
    if len(words) > 2 and Path(words[0]).name.startswith("python") and words[1:3] == ["-m", "relay"]:
        del words[1:3]
        words[0] = "relay"
    return words


def _relay_commands() -> list[list[str]]:
    return [words[1:] for words in map(_words, _command_lines()) if len(words) > 1 and Path(words[0]).name == "relay"]


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", _prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_there_are_pages_to_look_at() -> None:
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"} <= set(IDS)
    names = {"architecture", "data-path", "operations", "rfc", "settings"}
    assert {f"docs/{name}.md" for name in names} <= set(IDS)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_paths_in_backticks_exist(page: Path) -> None:
    """All but docs/performance.md, which the benchmark's figures fill."""
    for path in re.findall(r"`((?:masque|relay|interop|certs|docs|tests)/[\w./-]+)`", _prose(page)):
        assert path == "docs/performance.md" or (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_settings_in_backticks_exist(page: Path) -> None:
    known = {dotted(path) for path in leaves()}
    groups = "|".join(dotted(path) for path in branches())
    for name in re.findall(rf"`((?:{groups})\.[a-z_0-9]+)`", _prose(page)):
        assert name in known, name


def test_the_page_of_settings_is_up_to_date() -> None:
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == render_settings(), "python -m docs.generate"


def test_the_page_of_settings_has_them_all() -> None:
    for path, info in leaves().items():
        assert f"| `{dotted(path)}` |" in render_settings()
        assert " ".join((info.description or "?").split()).replace("|", r"\|") in render_settings()


def test_every_command_of_the_relay_is_shown() -> None:
    shown = {command[0] for command in _relay_commands()}
    assert {"serve", "check", "key", "token", "forward", "interop"} <= shown


@pytest.mark.parametrize("command", _relay_commands(), ids=" ".join)
def test_commands_parse(command: list[str]) -> None:
    if len(command) == 1:  # `relay forward`: only a mention
        assert command[0] in {"--version", "serve", "check", "key", "token", "forward", "dev", "interop"}
        return
    options = make_parser().parse_args(command)
    overrides = dict(item.split("=", 1) for item in getattr(options, "set", []))
    load_settings(None, {}, overrides)


def test_modules_and_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    shown = 0
    for words in map(_words, _command_lines()):
        if words[:1] == ["make"]:
            assert words[1] in targets, words
            shown += 1
        elif len(words) > 2 and words[0].endswith(("python", "python3")) and words[1] == "-m":
            assert importlib.util.find_spec(words[2]) is not None, words
            shown += 1
    assert shown > 5


@pytest.mark.parametrize("block", _cases("toml"))
def test_toml_examples_load(block: str, tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(block)
    settings = load_settings(file)
    assert settings != Settings()
    assert settings.auth.preshared or settings.tokens.issuers
    assert settings.tls.certificate
    assert settings.tls.private_key
    assert tomllib.loads(block)


def test_environment_examples_load() -> None:
    found = 0
    for line in _command_lines():
        if re.search(r"\bRELAY_\w+=", line):
            words = shlex.split(line.removeprefix("Environment="))
            given = dict(word.split("=", 1) for word in words if word.startswith("RELAY_"))
            assert load_settings(None, given) != Settings()
            found += 1
    assert found


@pytest.mark.parametrize("block", _cases("python"))
def test_python_examples_compile_and_their_imports_exist(block: str) -> None:
    tree = ast.parse(block)
    compile(tree, "example", "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


async def test_the_example_of_hooks_does_what_it_says() -> None:
    (block,) = [text for name, text in _all("python") if "def start(" in text]
    module = ModuleType("example")
    exec(compile(block, "example", "exec"), module.__dict__)
    hooks = await module.start(Settings())
    chain = HookChain([hooks])
    refused = await chain.authorize(_context("tracker.example"))
    assert isinstance(refused, Reject)
    assert refused.failure.kind is FailureKind.HTTP_REQUEST_DENIED
    allowed = _context("other.example")
    assert await chain.authorize(allowed) == allowed.target
    hooks.tunnel_closed(allowed, Outcome.failed(FailureKind.TUNNEL_IDLE, Side.RELAY))


def _context(host: str) -> ExchangeContext:
    target = parse_target(host, "443")
    head = RequestHead(b"CONNECT", authority=b"x:1")
    context = ExchangeContext(ConnectionContext(0.0), TunnelKind.TCP, head, target)
    context.principal = Principal("preshared-1", AuthScheme.PRESHARED)
    return context


def _first_cells(page: str, title: str) -> set[str]:
    """The names in the first column of the table below a title."""
    text = (ROOT / page).read_text(encoding="utf-8")
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([a-z_]+)` \|", section, flags=re.M))


def test_all_metrics_are_listed() -> None:
    assert _first_cells("docs/operations.md", "Metrics") == {metric.metric_name for metric in Metric}


def test_all_log_events_are_listed() -> None:
    events = {"unnamed_event"}
    for file in (ROOT / "relay").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        events |= set(re.findall(r'(?:_log|get_logger\(\))\.[a-z]+\(\s*(?:[\w.]+, )?"(\w+)"', text))
    assert _first_cells("docs/operations.md", "Log events") == events


def test_all_rooms_are_listed() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for package in ("masque", "relay"):
        for path in (ROOT / package).iterdir():
            if path.name in {"__init__.py", "py.typed", "__pycache__"}:
                continue
            assert f"`{package}/{path.name}`" in text, path.name


@pytest.mark.parametrize("name", [name.value for name in LimitName])
def test_a_limit_is_named_as_its_setting(name: str) -> None:
    assert ("limits", name) in leaves()


def test_rows_of_the_rfc_page_name_files_that_exist() -> None:
    rows = [
        line
        for line in (ROOT / "docs/rfc.md").read_text(encoding="utf-8").splitlines()
        if "`" in line and line[0] == "|"
    ]
    assert len(rows) > 60
    for row in rows:
        modules, tests = row.split(" | ")[-2:]
        for module in re.findall(r"`([^`]+)`", modules):
            assert (ROOT / module).is_file(), row
        for test in re.findall(r"`([^`]+)`", tests):
            assert test.startswith("tests/"), row
            assert (ROOT / test).is_file(), row


PROTOCOLS = {8441, 9000, 9001, 9110, 9114, 9204, 9209, 9220, 9221, 9297, 9298, 9474, 9497, 9577, 9578}


def _cited() -> set[tuple[int, str]]:
    """The sections of PROTOCOLS that code cites."""
    found = set()
    for package in ("masque", "relay"):
        for file in (ROOT / package).rglob("*.py"):
            text = " ".join(file.read_text(encoding="utf-8").split())
            for number, sections in re.findall(r"RFC (\d+)((?:,? (?:and |to )?§[\d.]+)+)", text):
                found |= {(int(number), section.rstrip(".")) for section in re.findall(r"§([\d.]+)", sections)}
    return {(number, section) for number, section in found if number in PROTOCOLS}


def _rows() -> set[tuple[int, str]]:
    """The sections that the page has rows for."""
    found = set()
    number = 0
    for line in (ROOT / "docs/rfc.md").read_text(encoding="utf-8").splitlines():
        title = re.fullmatch(r"## RFC (\d+), .*", line)
        if line.startswith("## "):
            number = int(title[1]) if title else 0
        elif line.startswith("| "):
            cell = line.split(" | ")[0].removeprefix("| ")
            if number and re.fullmatch(r"[\d.]+", cell):
                found.add((number, cell))
            for other, sections in re.findall(r"(\d{4}) ((?:§[\d.]+,? ?)+)", cell):
                found |= {(int(other), section) for section in re.findall(r"§([\d.]+)", sections)}
    return found


def test_sections_that_code_cites_have_rows() -> None:
    rows = _rows()
    missing = []
    for number, section in sorted(_cited()):
        parts = section.split(".")
        if not any((number, ".".join(parts[:length])) in rows for length in range(1, len(parts) + 1)):
            missing.append(f"RFC {number} §{section}")
    assert not missing


def test_the_changelog_keeps_its_order() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased = text.partition("\n## Unreleased\n")[2].partition("\n## ")[0]
    assert re.findall(r"^### (.*)$", unreleased, flags=re.M) == ["Breaking", "Added", "Changed", "Fixed", "Security"]
