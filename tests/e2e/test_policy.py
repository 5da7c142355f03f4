"""Policy from end to end: names that point elsewhere from answer to answer, loops, and rules that are reloaded."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import dns.message
import pytest

from relay.cli import main
from relay.client import ClientError, RelayClient
from relay.hooks import TunnelKind
from tests.e2e.command import FOLDER, complaint
from tests.e2e.conftest import StartRelay
from tests.e2e.origins import tcp_echo, tcp_listener, udp_origin
from tests.e2e.rig import resolving, running_process, until
from tests.relay.dns_server import Reply, records, running_server
from tests.relay.hooks_rig import round_trip

pytestmark = pytest.mark.anyio

PROHIBITED = (502, "masque-relay;error=destination_ip_prohibited")
DENIED = (403, "masque-relay;error=http_request_denied")


async def answer_to(client: RelayClient, host: str, port: int, *, udp: bool = False) -> tuple[int | None, str | None]:
    """The status and Proxy-Status with which a tunnel is refused; 200 when it is not."""
    try:
        await (client.open_udp(host, port) if udp else client.open_tcp(host, port))
    except ClientError as error:
        return error.status, error.proxy_status
    return 200, None


def lying(*answers: tuple[str, ...]) -> Reply:
    """Give these addresses in turn, each time valid for no time; the last ones for ever."""
    turns: Iterator[tuple[str, ...]] = chain(answers, repeat(answers[-1]))

    def reply(query: dns.message.Message) -> dns.message.Message | None:
        return records(*(f"rebound.example. 0 IN A {address}" for address in next(turns)))(query)

    return reply


@pytest.mark.parametrize("udp", [False, True])
async def test_a_name_that_is_bound_anew(start_relay: StartRelay, udp: bool) -> None:
    """127.0.0.2 stands for the public address here: it is the one that may be reached."""
    async with running_server() as server, tcp_listener("127.0.0.2") as public:
        settings = {"policy.allow": '["127.0.0.2/32"]', "resolver.min_ttl": "0"}
        async with (
            tcp_listener("127.0.0.1", public.port) as inside,
            udp_origin("127.0.0.1") as udp_inside,
            start_relay(resolving(server, **settings)) as relay,
            relay.client() as client,
        ):
            port = udp_inside.port if udp else public.port
            server.answer("rebound.example", lying(("127.0.0.2",), ("127.0.0.1",)))
            assert await answer_to(client, "rebound.example", port, udp=udp) == (200, None)
            assert await answer_to(client, "rebound.example", port, udp=udp) == PROHIBITED
            assert await answer_to(client, "rebound.example", port, udp=udp) == PROHIBITED
            mixed = ("127.0.0.1", "10.0.0.1", "127.0.0.2", "0.0.0.0")
            server.answer("rebound.example", lying(mixed, tuple(reversed(mixed))))
            for _ in range(2):
                assert await answer_to(client, "rebound.example", port, udp=udp) == (200, None)
            assert not inside.has_waiting()
            assert public.has_waiting() is not udp


async def test_an_alias_that_is_denied(start_relay: StartRelay) -> None:
    async with running_server() as server, tcp_listener() as origin:
        chain_of_names = ("shop.example. 60 IN CNAME t.tracker.example.", "t.tracker.example. 60 IN A 127.0.0.1")
        server.answer("shop.example", records(*chain_of_names))
        rules = json.dumps([{"verdict": "deny", "names": ["tracker.example"]}])
        async with start_relay(resolving(server, **{"policy.rules": rules})) as relay, relay.client() as client:
            status, reason = DENIED
            told = f'{reason};next-hop-aliases="t.tracker.example"'
            assert await answer_to(client, "shop.example", origin.port) == (status, told)
            asked = sum(server.asked.values())
            assert await answer_to(client, "tracker.example", origin.port) == DENIED
            assert sum(server.asked.values()) == asked, "the name alone decides"
        assert not origin.has_waiting()


async def test_a_tunnel_back_into_the_relay_is_refused(start_relay: StartRelay) -> None:
    async with start_relay() as relay, relay.client() as client:
        assert await answer_to(client, "127.0.0.1", relay.port, udp=True) == PROHIBITED
    async with start_relay({"policy.allow_own": "true"}) as relay, relay.client() as client:
        assert await answer_to(client, "127.0.0.1", relay.port, udp=True) == (200, None)


async def test_rules_are_reloaded_while_tunnels_run(certificates: Path, tmp_path: Path) -> None:
    rules, config = tmp_path / "rules.toml", tmp_path / "relay.toml"
    rules.write_text("rules = []\n")
    config.write_text(f'[policy]\nfile = "{rules}"\n')
    async with (
        tcp_echo() as port,
        tcp_echo() as other,
        running_process(certificates, "qh3", arguments=("--config", str(config))) as relay,
        relay.client() as client,
    ):
        stream = await client.open_tcp("127.0.0.1", port)

        async def reload(event: str, times: int) -> None:
            relay.process.send_signal(signal.SIGHUP)
            await until(lambda: relay.output.count(event) == times)

        rules.write_text(f'[[rules]]\nverdict = "deny"\nports = [{port}]\n')
        await reload("policy_reloaded", 1)
        assert await answer_to(client, "127.0.0.1", port) == DENIED
        await stream.send(b"still here")
        assert await stream.receive() == b"still here"

        for broken in ('[[rules]]\nverdict = "dney"\n', ""):
            rules.write_text(broken)
            await reload("policy_refused", 1 if broken else 2)
            assert await answer_to(client, "127.0.0.1", port) == DENIED
        assert f"policy.file: {rules}: rules[0].verdict: must be 'allow' or 'deny'" in relay.output

        config.write_text(f"[policy]\ndenied_ports = [{other}]\n")
        await reload("policy_reloaded", 2)
        await round_trip(client, TunnelKind.TCP, port)
        assert await answer_to(client, "127.0.0.1", other) == DENIED
        await stream.send(b"and here")
        assert await stream.receive() == b"and here"


class TestCheck:
    """`relay check --target`."""

    RULES = json.dumps(
        [
            {"verdict": "allow", "names": ["intern.example"], "networks": ["10.0.0.0/8"]},
            {"verdict": "deny", "names": ["tracker.example"]},
            {"verdict": "deny", "principals": ["preshared-2"]},
            {"verdict": "allow", "networks": ["192.168.0.0/16"]},
            {"verdict": "deny", "schemes": ["basic"]},
        ]
    )

    @pytest.mark.parametrize(
        ("asked", "code", "said"),
        [
            ("8.8.8.8:443", 0, "8.8.8.8: allow, by the default: globally reachable"),
            ("8.8.8.8:25", 1, "8.8.8.8: deny, by policy.denied_ports"),
            ("[fd00::1]:443", 1, "fd00::1: deny, by the default: unique local, fc00::/7 (RFC 4193)"),
            ("10.0.0.1:443", 1, "10.0.0.1: deny, by the default: private use, 10.0.0.0/8 (RFC 1918)"),
            ("a.intern.example:443 --address 10.0.0.1", 0, "10.0.0.1: allow, by policy.rules[0]"),
            ("b.example:443 --alias x.tracker.example --address 8.8.8.8", 1, "8.8.8.8: deny, by policy.rules[1]"),
            ("b.example:443 --principal preshared-2 --address 8.8.8.8", 1, "8.8.8.8: deny, by policy.rules[2]"),
            (
                "127.0.0.1:4433 --kind udp --set listen.host=127.0.0.1 --set listen.port=4433",
                1,
                "127.0.0.1: deny, by an address of this",
            ),
            (
                "b.example:443",
                0,
                "before it is resolved: nothing refuses it; each address is judged then (try --address)\n"
                "at an address that no rule names and that is globally reachable: allow, by the default",
            ),
            (
                "b.example:443 --scheme basic",
                1,
                "before it is resolved: nothing refuses it; each address is judged then (try --address)\n"
                "at an address that no rule names and that is globally reachable: deny, by policy.rules[4]",
            ),
            ("b.example:443 --principal preshared-2", 1, "before it is resolved: deny, by policy.rules[2]"),
            ("b.example:25", 1, "before it is resolved: deny, by policy.denied_ports"),
        ],
    )
    def test_it_says_which_rule_decides(
        self, capsys: pytest.CaptureFixture[str], asked: str, code: int, said: str
    ) -> None:
        assert main(["check", f"--set=policy.rules={self.RULES}", "--target", *asked.split()]) == code
        found = capsys.readouterr()
        assert found.out.startswith(said)
        assert found.err == ""

    def test_the_page_of_the_policy_does_what_it_says(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page = (FOLDER / "docs/policy.md").read_text(encoding="utf-8")
        config = tmp_path / "relay.toml"
        config.write_text(page.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
        commands = page.partition("```sh\n")[2].partition("```")[0].splitlines()
        codes = [main(shlex.split(line.replace("relay.toml", str(config)))[1:]) for line in commands]
        said = capsys.readouterr().out.splitlines()
        assert codes == [1, 0, 1]
        assert said == [
            "before it is resolved: deny, by policy.rules[1]",
            "10.1.2.3: allow, by policy.rules[0]",
            "192.168.1.1: deny, by the default: private use, 192.168.0.0/16 (RFC 1918)",
        ]

    @pytest.mark.parametrize("target", ["b.example", "a..b:443", "b.example:443 --alias 1.2.3"])
    def test_what_is_no_target(self, capsys: pytest.CaptureFixture[str], target: str) -> None:
        assert main(["check", "--target", *target.split()]) == 2
        found = capsys.readouterr()
        assert (found.out, len(found.err.splitlines())) == ("", 1)

    def test_without_a_target_it_reads_the_rules(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "rules.toml"
        file.write_text('[[rules]]\nverdict = "deny"\n')
        assert main(["check", f"--set=policy.file={file}"]) == 0
        assert f"# policy: 2 rules in all, {file} was read" in capsys.readouterr().out.splitlines()

    def test_rules_that_cannot_be_used(self, tmp_path: Path, good: list[str]) -> None:
        line = complaint("serve", *good, f"--set=policy.file={tmp_path / 'none.toml'}")
        assert line == f"policy.file: {tmp_path / 'none.toml'}: cannot be read: No such file or directory"
