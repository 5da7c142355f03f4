"""relay.policy's rules: what each member fits, which rule decides, and that look-up and reading in order agree."""

from __future__ import annotations

import contextlib
import tempfile
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.target import IPAddress
from relay.hooks import AuthScheme, TunnelKind
from relay.policy import Question, Rule, RuleSet, Ruling, is_globally_reachable, read_rules
from relay.settings import (
    PolicyRule,
    PolicySettings,
    SettingsError,
    dump_settings,
    load_settings,
    parse_domain,
    parse_port_range,
    read_policy_file,
)
from tests.relay.policy_rig import allowed, ask, decide, rule, ruleset


class TestOldSettings:
    """allow, deny and denied_ports mean what they meant before there were rules."""

    def test_allow_opens_and_deny_closes_again(self) -> None:
        rules = ruleset(allow=["10.0.0.0/8"], deny=["10.1.0.0/16", "1.1.1.0/24"])
        found = {text: allowed(rules, text) for text in ("10.2.0.1", "10.1.0.1", "1.1.1.1", "8.8.8.8", "192.168.0.1")}
        assert found == {
            "10.2.0.1": True,
            "10.1.0.1": False,
            "1.1.1.1": False,
            "8.8.8.8": True,
            "192.168.0.1": False,
        }

    def test_allow_of_ipv4_does_not_open_its_mapped_form(self) -> None:
        rules = ruleset(allow=["127.0.0.0/8"])
        assert allowed(rules, "127.0.0.1")
        assert not allowed(rules, "::ffff:127.0.0.1")
        assert not allowed(rules, "::1")
        assert allowed(ruleset(allow=["::ffff:127.0.0.0/104"]), "::ffff:127.0.0.1")

    def test_deny_of_ipv4_closes_its_mapped_form(self) -> None:
        rules = ruleset(allow=["::ffff:0:0/96"], deny=["10.0.0.0/8"])
        assert allowed(rules, "::ffff:8.8.8.8")
        assert not allowed(rules, "::ffff:10.0.0.1")

    @pytest.mark.parametrize(("port", "expected"), [(25, False), (443, True), (1, True), (65535, True)])
    def test_ports(self, port: int, expected: bool) -> None:
        rules = ruleset(denied_ports=PolicySettings().denied_ports)
        assert allowed(rules, question=ask(port=port)) is expected


class TestOrder:
    def test_the_first_that_fits_decides(self) -> None:
        rules = ruleset(
            rule("allow", names=["good.example.com"]),
            rule("deny", names=["example.com"]),
            rule("deny", networks=["8.8.0.0/16"]),
            rule("allow", networks=["8.0.0.0/8"]),
        )
        assert decide(rules, question=ask("good.example.com")).reason == "policy.rules[0]"
        assert decide(rules, question=ask("bad.example.com")).reason == "policy.rules[1]"
        assert decide(rules, question=ask("example.org")).reason == "policy.rules[2]"
        assert decide(rules, "8.9.0.1").reason == "policy.rules[3]"
        assert decide(rules, "9.9.9.9").reason == "the default: globally reachable"

    def test_where_settings_and_file_stand(self, tmp_path: Path) -> None:
        file = tmp_path / "rules.toml"
        file.write_text('[[rules]]\nverdict = "deny"\nnetworks = ["10.2.0.0/16"]\n')
        rules = ruleset(
            rule("allow", ports=[25]),
            rule("allow", networks=["10.1.0.0/16"]),
            denied_ports=[25],
            deny=["10.1.1.0/24"],
            allow=["10.0.0.0/8"],
            file=file,
        )
        assert decide(rules, question=ask(port=25)).reason == "policy.denied_ports"
        assert decide(rules, "10.1.1.1").reason == "policy.deny"
        assert decide(rules, "10.1.2.1").reason == "policy.rules[1]"
        assert decide(rules, "10.2.0.1").reason == f"policy.file: {file}: rules[0]"
        assert decide(rules, "10.3.0.1").reason == "policy.allow"

    def test_a_last_rule_that_denies_turns_the_default(self) -> None:
        rules = ruleset(rule("allow", principals=["preshared-2"]), rule("deny"))
        assert not allowed(rules)
        assert allowed(rules, question=ask(principal="preshared-2"))


class TestMembers:
    @pytest.mark.parametrize(
        ("name", "fits"),
        [
            ("example.com", True),
            ("www.example.com", True),
            ("a.b.example.com", True),
            ("notexample.com", False),
            ("example.com.evil", False),
            ("com", False),
            (None, False),
        ],
    )
    @pytest.mark.parametrize("written", ["example.com", "EXAMPLE.Com."])
    def test_names_are_compared_label_by_label(self, name: str | None, fits: bool, written: str) -> None:
        assert allowed(ruleset(rule("deny", names=[written])), question=ask(name)) is not fits

    def test_names_in_unicode_fit_as_they_are_sent(self) -> None:
        rules = ruleset(rule("deny", names=["Bücher.example", "faß.example"]))
        for name in ("xn--bcher-kva.example", "www.xn--bcher-kva.example", "xn--fa-hia.example"):
            assert not allowed(rules, question=ask(name)), name

    def test_a_denied_alias_is_refused_and_an_allowed_one_opens_nothing(self) -> None:
        rules = ruleset(rule("deny", names=["blocked.example"]), rule("allow", names=["open.example"]), rule("deny"))
        assert allowed(rules, question=ask("www.open.example"))
        assert not allowed(rules, question=ask("www.open.example", aliases=("x.example", "cdn.blocked.example")))
        assert not allowed(rules, question=ask("www.other.example", aliases=("open.example",)))

    @pytest.mark.parametrize(("port", "fits"), [(79, False), (80, True), (90, True), (91, False), (443, True)])
    def test_ports_and_ranges(self, port: int, fits: bool) -> None:
        assert allowed(ruleset(rule("deny", ports=["80-90", 443])), question=ask(port=port)) is not fits

    def test_a_range_of_many_ports(self) -> None:
        rules = ruleset(rule("deny", ports=["1-1023", "2000-65535"]))
        assert [allowed(rules, question=ask(port=port)) for port in (1, 1023, 1024, 1999, 2000, 65535)] == [
            False, False, True, True, False, False,
        ]  # fmt: skip

    def test_principals_schemes_and_kinds(self) -> None:
        rules = ruleset(
            rule("deny", principals=["preshared-2", "basic-1"]),
            rule("deny", schemes=["basic"]),
            rule("deny", kinds=["udp"], ports=[443]),
        )
        assert allowed(rules)
        assert not allowed(rules, question=ask(principal="preshared-2"))
        assert not allowed(rules, question=ask(scheme=AuthScheme.BASIC))
        assert not allowed(rules, question=ask(kind=TunnelKind.UDP))
        assert allowed(rules, question=ask(kind=TunnelKind.UDP, port=53))

    def test_nobody_is_no_principal_of_a_rule(self) -> None:
        question = Question(TunnelKind.TCP, 443)
        rules = ruleset(rule("deny", principals=["x"]), rule("deny", schemes=["open"]))
        assert allowed(rules, question=question)

    def test_all_members_must_fit(self) -> None:
        rules = ruleset(rule("deny", names=["example.com"], ports=[443], networks=["8.0.0.0/8"]))
        assert not allowed(rules, question=ask("example.com"))
        assert allowed(rules, question=ask("example.com", 80))
        assert allowed(rules, question=ask("example.org"))
        assert allowed(rules, "9.9.9.9", ask("example.com"))


class TestOpening:
    """What a rule that allows may open."""

    def test_without_networks_it_opens_nothing_special(self) -> None:
        rules = ruleset(
            rule("allow", names=["example.com"]), rule("allow", principals=["preshared-1"]), rule("allow")
        )
        for address in ("127.0.0.1", "10.0.0.1", "::1", "169.254.169.254", "64:ff9b::a00:1"):
            assert not allowed(rules, address, ask("example.com")), address
        assert allowed(rules, question=ask("example.com"))

    def test_what_it_does_not_open_goes_to_the_next_rule(self) -> None:
        rules = ruleset(rule("allow", names=["example.com"]), rule("allow", networks=["10.0.0.0/8"]))
        assert decide(rules, "10.0.0.1", ask("example.com")).reason == "policy.rules[1]"

    def test_with_networks_and_a_name_it_opens_for_this_name_only(self) -> None:
        rules = ruleset(rule("allow", names=["intern.example"], networks=["10.0.0.0/8"]))
        assert allowed(rules, "10.0.0.1", ask("a.intern.example"))
        assert not allowed(rules, "10.0.0.1", ask("example.org"))
        assert not allowed(rules, "10.0.0.1", ask())


class TestBeforeResolving:
    def test_what_no_address_rescues_is_refused_at_once(self) -> None:
        rules = ruleset(rule("deny", names=["a.example"]), rule("allow", networks=["10.0.0.0/8"]), rule("deny"))
        found = rules.select(ask("a.example")).refused_already()
        assert found is not None
        assert (found.reason, found.is_of_address) == ("policy.rules[0]", False)

    @pytest.mark.parametrize(
        "first", [rule("allow", networks=["10.0.0.0/8"]), rule("allow", ports=[443]), rule("deny", networks=["::/0"])]
    )
    def test_what_an_address_may_rescue_is_not(self, first: PolicyRule) -> None:
        selection = ruleset(first, rule("deny", networks=["0.0.0.0/0"], names=["a.example"])).select(ask("a.example"))
        assert selection.refused_already() is None

    @pytest.mark.parametrize("question", [ask("a.example"), ask("b.example"), ask("c.example", 25)])
    def test_it_is_never_refused_what_some_address_would_be_allowed(self, question: Question) -> None:
        rules = ruleset(
            rule("deny", ports=[25]),
            rule("allow", names=["b.example"]),
            rule("allow", networks=["10.0.0.0/8"], names=["a.example"]),
            rule("deny"),
        )
        is_refused = rules.select(question).refused_already() is not None
        assert is_refused == (not any(allowed(rules, one, question) for one in ("10.0.0.1", "8.8.8.8")))


LABELS = st.sampled_from(["a", "b", "example"])
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
PLACES = ["8.8.8.8", "8.9.0.1", "10.0.0.1", "10.1.0.1", "127.0.0.1", "2606:4700::1", "2606:4701::1", "fd00::1"]
NETWORKS = st.sampled_from(
    ["0.0.0.0/0", "8.0.0.0/8", "8.8.0.0/16", "8.8.8.8/32", "10.0.0.0/8", "10.1.0.0/16", "2606:4700::/32", "fd00::/8"]
)
PORTS = st.sampled_from(["25", "80-90", "443", "1-65535"])


def _some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=2, unique=True)


RULES = st.builds(
    lambda verdict, **members: rule(verdict, **{name: value for name, value in members.items() if value}),
    st.sampled_from(["allow", "deny"]),
    names=_some(NAMES),
    networks=_some(NETWORKS),
    ports=_some(PORTS),
    principals=_some(st.sampled_from(["one", "two"])),
    schemes=_some(st.sampled_from(["basic", "preshared"])),
    kinds=_some(st.sampled_from(["tcp", "udp"])),
)
QUESTIONS = st.builds(
    ask,
    st.none() | NAMES,
    st.sampled_from([25, 85, 443]),
    aliases=st.lists(NAMES, max_size=2).map(tuple),
    principal=st.sampled_from(["one", "two"]),
    scheme=st.sampled_from([AuthScheme.BASIC, AuthScheme.PRESHARED]),
    kind=st.sampled_from(TunnelKind),
)


def _read_in_order(rules: RuleSet, question: Question, address: IPAddress) -> str:
    """What the rules say, read one after the other as the documentation tells it."""
    for one in rules.rules:
        if _fits(one, question, address):
            return one.origin
    return "the default"


def _fits(one: Rule, question: Question, address: IPAddress) -> bool:
    is_deny = one.ruling is Ruling.DENY
    asked = [name for name in (question.name, *(question.aliases if is_deny else ())) if name]
    assert question.principal is not None
    return (
        (not one.kinds or question.kind in one.kinds)
        and (not one.ports or any(question.port in range(low, high + 1) for low, high in one.ports))
        and (not one.principals or question.principal.name in one.principals)
        and (not one.schemes or question.principal.scheme in one.schemes)
        and (not one.names or any(f".{name}".endswith(f".{suffix}") for name in asked for suffix in one.names))
        and (any(address in network for network in one.networks) if one.networks else True)
        and (is_deny or bool(one.networks) or is_globally_reachable(address))
    )


@given(st.lists(RULES, max_size=8), QUESTIONS, st.sampled_from(PLACES))
def test_looking_up_finds_what_reading_in_order_finds(
    rules: list[PolicyRule], question: Question, place: str
) -> None:
    compiled = ruleset(*rules)
    address = ip_address(place)
    decision = compiled.select(question).decide(address)
    assert decision.reason.partition(":")[0] == _read_in_order(compiled, question, address)
    refused = compiled.select(question).refused_already()
    if refused is not None:
        assert not any(allowed(compiled, other, question) for other in PLACES)


class TestFile:
    def test_rules_are_read(self, tmp_path: Path) -> None:
        file = tmp_path / "rules.toml"
        file.write_text('[[rules]]\nverdict = "deny"\nnames = ["A.example"]\nports = [25, "80-90"]\n')
        (found,) = read_policy_file(file)
        assert (found.names, found.ports) == (("a.example",), ("25", "80-90"))

    @pytest.mark.parametrize(
        ("text", "wrong"),
        [
            ("rules = 1\n", "rules: must be a list"),
            ("", "holds no rules; write rules = [] if that is meant"),
            ("[[rule]]\nverdict = 'deny'\n", "'rule' is not known there; rules are tables [[rules]]"),
            ("[[rules]]\n", "rules[0].verdict: must be there"),
            ("[[rules]]\nverdict = 'perhaps'\n", "rules[0].verdict: must be 'allow' or 'deny'"),
            ("[[rules]]\nverdict = 'deny'\nport = [1]\n", "rules[0].port: is no member"),
            (
                "[[rules]]\nverdict = 'deny'\nnames = []\n",
                "rules[0]: names: must not be empty; leave it out to mean all",
            ),
            (
                "[[rules]]\nverdict = 'deny'\n[[rules]]\nverdict = 'deny'\nports = [1, 65536]\n",
                'rules[1].ports[1]: must be a port or a range of ports within 1..65535, like 443 or "8000-8999"',
            ),
            (
                "[[rules]]\nverdict = 'deny'\nnames = ['1.2.3.4']\n",
                "rules[0].names[0]: must be a domain name; addresses belong into networks",
            ),
        ],
    )
    def test_a_bad_file_is_one_line_without_the_value(self, tmp_path: Path, text: str, wrong: str) -> None:
        file = tmp_path / "rules.toml"
        file.write_text(text)
        with pytest.raises(SettingsError) as raised:
            read_policy_file(file)
        assert str(raised.value) == f"policy.file: {file}: {wrong}"

    def test_a_file_that_is_not_there_or_no_toml(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"^policy\.file: .*: cannot be read: No such file"):
            read_policy_file(tmp_path / "none.toml")
        file = tmp_path / "rules.toml"
        file.write_text("[[rules]\n")
        with pytest.raises(SettingsError, match=r"^policy\.file: .*: is not valid TOML: "):
            read_policy_file(file)

    @given(st.binary(max_size=80))
    def test_any_file_is_read_or_refused(self, data: bytes) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            with contextlib.suppress(SettingsError):
                read_policy_file(Path(file.name))

    @pytest.mark.parametrize(("member", "known"), [("schemes", AuthScheme), ("kinds", TunnelKind)])
    def test_words_that_there_are_not(self, member: str, known: type[AuthScheme | TunnelKind]) -> None:
        with pytest.raises(SettingsError) as raised:
            read_rules(PolicySettings(rules=(rule("deny", **{member: ["tcpp"]}),)))
        assert str(raised.value) == f"policy.rules[0].{member}: must be of {', '.join(known)}"


def test_rules_of_the_settings_name_the_member_that_is_wrong() -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(None, {}, {"policy.rules": '[{"verdict": "deny"}, {"verdict": "deny", "ports": [80, "9-1"]}]'})
    line = str(raised.value)
    assert line.startswith("policy.rules[1].ports[1] (from the command line): must be a port")
    assert not line.endswith("9-1"), "what a rule names is not repeated: the line may go into a log"


def test_rules_are_shown_as_they_can_be_read_back(tmp_path: Path) -> None:
    settings = load_settings(
        None,
        {},
        {
            "policy.rules": '[{"verdict": "deny", "names": ["B\u00fccher.example"], "ports": [25, "80-90"]},'
            ' {"verdict": "allow", "networks": ["10.0.0.0/8"], "kinds": ["udp"]}]'
        },
    )
    file = tmp_path / "relay.toml"
    file.write_text(dump_settings(settings))
    assert load_settings(file).policy == settings.policy


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        name = parse_domain(text)
        assert name.isascii()
        assert parse_domain(name) == name == name.lower().rstrip(".")


@given(st.text(max_size=14))
def test_any_text_is_a_range_of_ports_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        low, high = parse_port_range(text)
        assert 1 <= low <= high <= 65535


def test_many_rules_cost_an_exchange_no_more_looks_than_few() -> None:
    """Not time but work: how many rules are looked at for one exchange."""
    blocked = [Rule(Ruling.DENY, str(n), names=frozenset({f"n{n}.example"})) for n in range(3000)]
    blocked += [
        Rule(Ruling.DENY, str(n), networks=(ip_network((n << 8, 24)),)) for n in range(1 << 16, (1 << 16) + 3000)
    ]
    blocked += [Rule(Ruling.DENY, str(n), principals=frozenset({f"p{n}"})) for n in range(3000)]
    blocked += [Rule(Ruling.DENY, str(n), ports=((n, n),)) for n in range(1, 3000)]
    rules = RuleSet(blocked)
    question = ask("www.example", 443, principal="p7")
    assert len(rules.about(ip_address("8.8.8.8"))) == 0
    assert rules.select(question)._numbers == [6007, 9442]
