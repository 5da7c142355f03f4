"""peer.toml and server.toml: what is read, and that everything wrong is told with file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.matrix.peers import Credentials, SpecError, check_faults, fill, load_peers, load_servers
from relay.conformance.cases import ALL_CASES
from relay.conformance.driver import Kind

_INTEROP = Path(__file__).parents[2] / "interop"
_GOOD = """
name = "good"
about = "a peer"
language = "C"
run = ["{build}/driver"]
"""


def _write(folder: Path, text: str, name: str = "good", file: str = "peer.toml") -> Path:
    (folder / name).mkdir()
    (folder / name / file).write_text(text)
    return folder


def test_the_files_of_the_tree_are_right() -> None:
    peers, servers = load_peers(_INTEROP / "peers"), load_servers(_INTEROP / "servers")
    assert "aioquic" in [spec.name for spec in peers]
    check_faults([*peers, *servers], [case.name for case in ALL_CASES])


def test_a_peer_is_read(tmp_path: Path) -> None:
    text = """
        tools = ["cc"]
        hint = "install a compiler"
        packages = ["gcc"]
        build = [["cc", "-o", "{build}/driver", "driver.c"], ["{python}", "-V"]]
        credentials = "basic"
        [faults]
        udp-echo = "sends nothing"
    """
    _write(tmp_path, _GOOD + text)
    (tmp_path / "shared-code").mkdir()
    [spec] = load_peers(tmp_path)
    assert (spec.name, spec.about, spec.language, spec.hint) == ("good", "a peer", "C", "install a compiler")
    assert (spec.folder, spec.tools, spec.packages) == (tmp_path / "good", ("cc",), ("gcc",))
    assert spec.build == (("cc", "-o", "{build}/driver", "driver.c"), ("{python}", "-V"))
    assert (spec.credentials, spec.planned, spec.faults) == (Credentials.BASIC, "", {"udp-echo": "sends nothing"})
    assert fill(spec.build[0], {"build": "/b", "python": "py"}) == ["cc", "-o", "/b/driver", "driver.c"]


@pytest.mark.parametrize(("text", "has_tunnels"), [("", True), ("tunnels = false\n", False)])
def test_a_peer_may_have_tokens_only(tmp_path: Path, text: str, has_tunnels: bool) -> None:
    _write(tmp_path, _GOOD + text)
    [spec] = load_peers(tmp_path)
    assert spec.has_tunnels is has_tunnels


def test_a_flag_is_true_or_false(tmp_path: Path) -> None:
    _write(tmp_path, _GOOD + 'tunnels = "no"\n')
    with pytest.raises(SpecError, match=r"good/peer\.toml: tunnels: must be true or false"):
        load_peers(tmp_path)


def test_a_value_that_looks_like_a_placeholder_stays(tmp_path: Path) -> None:
    values = {"template": "/{target_host}/{port}", "port": "4433"}
    assert fill(["--template={template}", "{port}"], values) == ["--template=/{target_host}/{port}", "4433"]


def test_a_planned_peer_needs_no_program(tmp_path: Path) -> None:
    text = 'name = "good"\nabout = "a peer"\nlanguage = "C"\nplanned = "waits for tokens"\n'
    [spec] = load_peers(_write(tmp_path, text))
    assert (spec.planned, spec.run) == ("waits for tokens", ())


def test_a_server_is_read(tmp_path: Path) -> None:
    text = _GOOD.replace("/driver", "/server") + 'kinds = ["udp"]\n'
    text = text.replace('server"]', 'server", "{host}:{port}", "{cert}", "{key}", "{template}"]')
    [spec] = load_servers(_write(tmp_path, text, file="server.toml"))
    assert spec.kinds == {Kind.UDP}
    assert spec.run[1:] == ("{host}:{port}", "{cert}", "{key}", "{template}")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name = ", "good/peer.toml: Invalid value"),
        (_GOOD.replace('"good"', '"other"'), "name: must be the folder's"),
        (_GOOD.replace('name = "good"', ""), "name: is missing"),
        (_GOOD.replace('"a peer"', "5"), "about: must be a text"),
        (_GOOD.replace('"a peer"', '""'), "about: must be a text"),
        (_GOOD.replace('language = "C"', ""), "language: is missing"),
        (_GOOD.replace('run = ["{build}/driver"]', ""), "run: is missing"),
        (_GOOD.replace("{build}", "{port}"), r"run: knows no \{port\}, only \{build\}, \{python\}"),
        (_GOOD.replace('["{build}/driver"]', '"driver"'), "run: must be a command"),
        (_GOOD + 'tools = "cc"\n', "tools: must be a list of texts"),
        (_GOOD + 'tools = ["cc"]\n', "hint: must say what to install"),
        (_GOOD + "tools = [5]\n", "tools: must be a list of texts"),
        (_GOOD + 'packages = ["--force"]\n', "packages: must be names of Debian packages"),
        (_GOOD + 'build = ["make"]\n', "build: must be a command"),
        (_GOOD + "build = [[]]\n", "build: has an empty command"),
        (_GOOD + 'build = [["{host}"]]\n', r"build: knows no \{host\}"),
        (_GOOD + 'credentials = "digest"\n', "credentials: must be one of preshared, basic"),
        (_GOOD + 'colour = "red"\n', "colour: is no key that is known"),
        (_GOOD + 'kinds = ["udp"]\n', "kinds: is no key that is known"),
        (_GOOD + "[faults]\nudp-echo = 1\n", "faults: must be a table of texts"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(SpecError, match=what) as error:
        load_peers(_write(tmp_path, text))
    assert "good/peer.toml" in str(error.value)


@pytest.mark.parametrize("kinds", ["[]", '["ip"]', '"udp"', "[5]"])
def test_a_server_has_tunnels_that_exist(tmp_path: Path, kinds: str) -> None:
    with pytest.raises(SpecError, match=r"good/server\.toml: kinds: "):
        load_servers(_write(tmp_path, f"{_GOOD}kinds = {kinds}\n", file="server.toml"))


def test_a_fault_is_of_a_case_that_exists(tmp_path: Path) -> None:
    specs = load_peers(_write(tmp_path, _GOOD + '[faults]\nno-case = "x"\n'))
    with pytest.raises(SpecError, match="good: faults: no case no-case"):
        check_faults(specs, ["udp-echo"])
