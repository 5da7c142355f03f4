"""relay.policy's hooks and own addresses: what each phase refuses, and how the refusal is named."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from masque.target import IPAddress, Target
from relay.errors import FailureKind, RelayError
from relay.hooks import Continue, Reject, Replace, Resolution, TunnelKind, Verdict
from relay.policy import OwnAddresses, PolicyGate, is_routed_locally, probe_local_routes
from relay.server import own_addresses
from relay.settings import load_settings
from tests.relay.policy_rig import allowed, ask, decide, exchange, rule, ruleset

pytestmark = pytest.mark.anyio

WEB = Target("www.example", 443)
GOOD, BAD, ALSO_GOOD = (ip_address(text) for text in ("2606:4700::1111", "fd00::1", "1.1.1.1"))


def kind_of(verdict: Verdict[object]) -> FailureKind:
    """The kind of failure that a verdict rejects with."""
    assert isinstance(verdict, Reject)
    return verdict.failure.kind


class TestGate:
    async def test_a_port_is_denied_before_resolving(self) -> None:
        gate = PolicyGate(ruleset(denied_ports=[25]))
        verdict = await gate.authorize(exchange(Target("mail.example", 25)))
        assert kind_of(verdict) is FailureKind.HTTP_REQUEST_DENIED
        assert await gate.authorize(exchange(WEB)) == Continue()

    async def test_a_forbidden_literal_is_refused_before_resolving(self) -> None:
        target = Target("127.0.0.1", 443, ip_address("127.0.0.1"))
        verdict = await PolicyGate(ruleset()).authorize(exchange(target))
        assert kind_of(verdict) is FailureKind.DESTINATION_IP_PROHIBITED

    async def test_addresses_are_filtered_in_order(self) -> None:
        gate = PolicyGate(ruleset())
        ctx = exchange(WEB)
        assert await gate.check_addresses(ctx, (GOOD, BAD, ALSO_GOOD)) == Replace((GOOD, ALSO_GOOD))
        assert await gate.check_addresses(ctx, (GOOD, ALSO_GOOD)) == Continue()
        assert kind_of(await gate.check_addresses(ctx, (BAD,))) is FailureKind.DESTINATION_IP_PROHIBITED
        assert kind_of(await gate.check_addresses(ctx, ())) is FailureKind.DESTINATION_IP_PROHIBITED

    async def test_a_denied_alias_is_no_matter_of_the_address(self) -> None:
        gate = PolicyGate(ruleset(rule("deny", names=["tracker.example"])))
        ctx = exchange(WEB)
        assert await gate.authorize(ctx) == Continue()
        ctx.resolution = Resolution((ALSO_GOOD,), ("www.tracker.example",))
        assert kind_of(await gate.check_addresses(ctx, (ALSO_GOOD,))) is FailureKind.HTTP_REQUEST_DENIED

    async def test_other_rules_hold_from_the_next_phase_on(self) -> None:
        gate = PolicyGate(ruleset())
        hooks = gate.hooks
        ctx = exchange(WEB)
        assert hooks.authorize is not None
        assert hooks.check_addresses is not None
        assert await hooks.authorize(ctx) == Continue()
        gate.rules = ruleset(rule("deny", principals=["preshared-1"]))
        assert kind_of(await hooks.check_addresses(ctx, (GOOD,))) is FailureKind.HTTP_REQUEST_DENIED
        assert kind_of(await hooks.authorize(ctx)) is FailureKind.HTTP_REQUEST_DENIED

    async def test_a_kernel_that_cannot_be_asked_refuses(self) -> None:
        def exhausted(_address: IPAddress) -> bool:
            raise OSError(24, "too many open files")

        gate = PolicyGate(ruleset(own=OwnAddresses(is_local=exhausted)))
        with pytest.raises(RelayError) as raised:
            await gate.check_addresses(exchange(WEB), (GOOD,))
        assert raised.value.failure.kind is FailureKind.CONNECTION_LIMIT_REACHED

    def test_nothing_shows_the_target(self) -> None:
        assert "www.example" not in repr(ask("www.example", 44321, aliases=("x.www.example",)))
        assert "44321" not in repr(ask("www.example", 44321))


class TestOwnAddresses:
    OWN = OwnAddresses([ip_network("8.8.0.0/16")], (ip_address("127.0.0.1"), 4433), lambda one: str(one) == "9.9.9.9")

    def test_they_are_refused_before_all_rules(self) -> None:
        rules = ruleset(rule("allow", networks=["0.0.0.0/0"]), own=self.OWN)
        for text in ("8.8.8.8", "9.9.9.9"):
            assert decide(rules, text).reason == "an address of this machine (policy.allow_own)"
        assert allowed(rules, "9.9.9.8")

    def test_nor_is_there_a_way_in_another_dress(self) -> None:
        rules = ruleset(allow=["::/0", "0.0.0.0/0", "::ffff:8.8.0.0/112", "64:ff9b::909:909/128"], own=self.OWN)
        assert not allowed(rules, "::ffff:8.8.8.8")
        assert not allowed(rules, "64:ff9b::9.9.9.9")
        assert allowed(rules, "::ffff:7.8.8.8")

    def test_loopback_is_the_rules_affair_but_for_the_listener(self) -> None:
        rules = ruleset(allow=["127.0.0.0/8"], own=self.OWN)
        assert allowed(rules, "127.0.0.1", ask(port=4433))
        assert allowed(rules, "127.0.0.1", ask(port=4434, kind=TunnelKind.UDP))
        assert allowed(rules, "127.0.0.2", ask(port=4433, kind=TunnelKind.UDP))
        assert not allowed(rules, "127.0.0.1", ask(port=4433, kind=TunnelKind.UDP))

    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])
    def test_a_listener_on_all_addresses_is_on_loopback_too(self, host: str) -> None:
        own = OwnAddresses(listener=(ip_address(host), 4433))
        rules = ruleset(allow=["127.0.0.0/8", "::1/128", "0.0.0.0/32"], own=own)
        for text in ("127.0.0.1", "127.1.2.3", "::1", "0.0.0.0"):
            assert not allowed(rules, text, ask(port=4433, kind=TunnelKind.UDP)), text

    def test_of_the_settings(self) -> None:
        names = {"egress.ipv4": "9.9.9.9", "egress.ipv6": "2606:4700::5"}
        own = own_addresses(load_settings(None, {}, names), ("2606:4700::1", 4433))
        rules = ruleset(rule("allow"), own=own)
        assert [allowed(rules, text) for text in ("9.9.9.9", "2606:4700::5", "2606:4700::1", "9.9.9.8")] == [
            False, False, False, True,
        ]  # fmt: skip
        names["policy.allow_own"] = "true"
        own = own_addresses(load_settings(None, {}, names), ("2606:4700::1", 4433))
        assert allowed(ruleset(own=own), "2606:4700::1")

    def test_the_kernel_is_asked(self) -> None:
        if probe_local_routes() is None:
            pytest.skip("this system has no netlink sockets to ask for routes")
        assert is_routed_locally(ip_address("127.0.0.1"))
        assert not is_routed_locally(ip_address("8.8.8.8"))
        assert not is_routed_locally(ip_address("2606:4700::1"))
