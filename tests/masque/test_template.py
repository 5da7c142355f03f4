"""URI Templates: which are allowed, expansion, matching, and that the two are inverse."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import LocalMisuse, RequestRejected
from masque.target import build_target, parse_target
from masque.template import DEFAULT_UDP_TEMPLATE, Template
from tests.masque.outcomes import attempt
from tests.masque.targets import HOSTS, PORTS

UDP = Template(DEFAULT_UDP_TEMPLATE)
QUERY = Template("/masque{?target_host,target_port}")

TEMPLATES = [
    DEFAULT_UDP_TEMPLATE,
    "https://example.org/.well-known/masque/udp/{target_host}/{target_port}/",
    "https://proxy.example.org:4443/masque?h={target_host}&p={target_port}",
    "https://proxy.example.org:4443/masque{?target_host,target_port}",
    "/masque{?target_host}{&target_port}",
    "/masque?mode=udp{&target_port,target_host}",
    "/{target_host}/udp{?target_port}",
    "/host-{target_host}/port-{target_port}-end",
    "/{target_host}?p={target_port}&x",
    "/a%20b/{target_host}/{target_port}",
]

BAD_TEMPLATES = [
    "",
    "masque/{target_host}/{target_port}",
    "//evil/{target_host}/{target_port}",
    "http://h/{target_host}/{target_port}",
    "https://h{?target_host,target_port}",
    "https:///{target_host}/{target_port}",
    "https://{target_host}/{target_port}",
    "https://h?{target_host}/{target_port}",
    "/{target_host}/",
    "/{target_port}/",
    "/{target_host}/{target_host}/{target_port}",
    "/{target_host}/{target_port}/{?target_host}",
    "/{+target_host}/{target_port}",
    "/{#target_host}/{target_port}",
    "/{.target_host}/{target_port}",
    "{/target_host,target_port}",
    "/x{/target_host,target_port}",
    "/x{;target_host,target_port}",
    "/{target_host,target_port}",
    "/{target_host}{target_port}",
    "/{target_host}:{target_port}",
    "/{target_host:3}/{target_port}",
    "/{target_host*}/{target_port}",
    "/x{?target_host,target_port*}",
    "/x{&target_host,target_port}",
    "/x{?target_host}{?target_port}",
    "/x?a=b{?target_host,target_port}",
    "/x?{target_host}&p={target_port}",
    "/x?h=a{target_host}&p={target_port}",
    "/x?h={target_host}b&p={target_port}",
    "/x?h={target_host}&h={target_port}",
    "/x?h={target_host}&h=1&p={target_port}",
    "/x?h={target_host}{target_port}",
    "/x{?target_host,target_port}/y",
    "/{target_host}/{target_port}#f",
    "/{target_host}/{target_port",
    "/{target_host}/target_port}",
    "/{target_host}/{{target_port}}",
    "/{}/{target_host}/{target_port}",
    "/{target host}/{target_port}",
    "/ /{target_host}/{target_port}",
    '/"/{target_host}/{target_port}',
    "/%/{target_host}/{target_port}",
    "/%zz/{target_host}/{target_port}",
    "/\u00fc/{target_host}/{target_port}",
    "/{target_host}/{target_port}\n",
    "/{target_host}/{target_port}\x00",
]


@pytest.mark.parametrize("text", TEMPLATES)
def test_allowed_templates(text: str) -> None:
    template = Template(text)
    assert template.variables == {"target_host", "target_port"}
    path = template.expand(target_host="a.example", target_port="53")
    assert path.startswith("/")
    assert template.match(path.encode()) == {"target_host": "a.example", "target_port": "53"}


@pytest.mark.parametrize("text", BAD_TEMPLATES)
def test_refused_templates(text: str) -> None:
    with pytest.raises(LocalMisuse):
        Template(text)


def test_attributes() -> None:
    template = Template("https://proxy.example:4443/masque{?target_host,target_port}")
    assert template.authority == "proxy.example:4443"
    assert UDP.authority is None
    assert Template(DEFAULT_UDP_TEMPLATE) == UDP
    assert template != UDP
    assert template != template.text
    assert len({UDP, Template(DEFAULT_UDP_TEMPLATE), template}) == 2
    assert "target_port" in repr(template)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        (DEFAULT_UDP_TEMPLATE, "/.well-known/masque/udp/2001%3Adb8%3A%3A42/443/"),
        ("https://p.example:4443/masque?h={target_host}&p={target_port}", "/masque?h=2001%3Adb8%3A%3A42&p=443"),
        ("https://p.example/m{?target_host,target_port}", "/m?target_host=2001%3Adb8%3A%3A42&target_port=443"),
        ("/m?x=1{&target_host,target_port}", "/m?x=1&target_host=2001%3Adb8%3A%3A42&target_port=443"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    """RFC 9298 §3: the colons of IPv6 are percent-encoded."""
    assert Template(text).expand(target_host="2001:db8::42", target_port="443") == expanded


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"target_host": "a"},
        {"target_host": "a", "target_port": "1", "other": "x"},
        {"target_host": "", "target_port": "1"},
        {"target_host": "a b", "target_port": "1"},
        {"target_host": "\u00fc", "target_port": "1"},
        {"target_host": "a\n", "target_port": "1"},
    ],
)
def test_bad_values(values: dict[str, str]) -> None:
    with pytest.raises(LocalMisuse):
        UDP.expand(**values)


@pytest.mark.parametrize(
    ("path", "host"),
    [
        (b"/.well-known/masque/udp/192.0.2.6/443/", "192.0.2.6"),
        (b"/.well-known/masque/udp/2001%3Adb8%3a%3A42/443/", "2001:db8::42"),
        (b"/.well-known/masque/udp/2001:db8::42/443/", "2001:db8::42"),
        (b"/.well-known/masque/udp/%65xample.com/443/", "example.com"),
        (b"/.well-known/masque/udp/%2A/443/", "*"),
        (b"/.well-known/masque/udp/*/443/", "*"),
        (b"/.well-known/masque/udp/a%252Fb/443/", "a%2Fb"),
        (b"/.well-known/masque/udp/a%2Fb/443/", "a/b"),
        (b"/.well-known/masque/udp/../443/", ".."),
        (b"/.well-known/masque/udp/h/443/?unknown=1", "h"),
    ],
)
def test_path_matches(path: bytes, host: str) -> None:
    """Split first, decode once."""
    assert UDP.match(path) == {"target_host": host, "target_port": "443"}


@pytest.mark.parametrize(
    "path",
    [
        b"", b"/", b"*", b"/.well-known/masque/udp/h/443", b"/.well-known/masque/udp/h/443//",
        b"/.well-known/masque/udp/h/443/x",
        b"//.well-known/masque/udp/h/443/", b".well-known/masque/udp/h/443/", b"/.well-known/masque/ip/h/443/",
        b"/.well-known/masque/udp/a/b/443/",
        b"/.WELL-KNOWN/masque/udp/h/443/", b"/%2Ewell-known/masque/udp/h/443/",
        b"/.well-known/masque/udp%2Fh/443/", b"/x?/.well-known/masque/udp/h/443/",
        b"https://example.org/.well-known/masque/udp/h/443/", b"/.well-known\x00/masque/udp/h/443/", b"\xff",
    ],
)  # fmt: skip
def test_paths_of_another_shape(path: bytes) -> None:
    assert UDP.match(path) is None


@pytest.mark.parametrize(
    "value",
    [
        b"", b"%", b"%4", b"%4g", b"%zz", b"%u0041", b"a%", b"%00", b"%0a", b"%7f", b"%20", b"a b", b"\x00",
        b"\xff", b"%ff", b"%c3%bc",
        "\u00fc".encode(), b"a#b", b"a\\b", b"a\"b", b"<a>", b"{a}", b"a|b", b"a^b", b"a`b",
    ],
)  # fmt: skip
def test_bad_values_in_a_path(value: bytes) -> None:
    for path in (
        b"/.well-known/masque/udp/" + value + b"/443/",
        b"/.well-known/masque/udp/host/" + value + b"/",
    ):
        with pytest.raises(RequestRejected) as caught:
            UDP.match(path)
        assert caught.value.status == 400
    with pytest.raises(RequestRejected):
        QUERY.match(b"/masque?target_port=1&target_host=" + value)


@pytest.mark.parametrize(
    "path",
    [
        b"/masque?target_host=h&target_port=1",
        b"/masque?target_port=1&target_host=h",
        b"/masque?x=%&target_port=1&y&target_host=h&",
        b"/masque?&&target_host=h&&target_port=1",
        b"/masque?Target_host=z&target_host2=z&target_port=1&target_host=h",
    ],
)
def test_query_in_any_order(path: bytes) -> None:
    assert QUERY.match(path) == {"target_host": "h", "target_port": "1"}


@pytest.mark.parametrize(
    "path",
    [
        b"/masque", b"/masque?", b"/masque?target_host=h", b"/masque?target_port=1",
        b"/masque/?target_host=h&target_port=1", b"/masque?target_host&target_port=1",
        b"/masque?target%5Fhost=h&target_port=1",
    ],
)  # fmt: skip
def test_query_of_another_shape(path: bytes) -> None:
    assert QUERY.match(path) is None


@pytest.mark.parametrize(
    "query",
    [
        b"target_host=a&target_host=a&target_port=1",
        b"target_host=&target_port=1",
        b"target_host=a&target_port=1&target_port=2",
    ],
)
def test_query_refused(query: bytes) -> None:
    with pytest.raises(RequestRejected) as caught:
        QUERY.match(b"/masque?" + query)
    assert caught.value.status == 400


def test_a_literal_parameter_is_part_of_the_shape() -> None:
    template = Template("/m?mode=udp{&target_host,target_port}")
    values = {"target_host": "h", "target_port": "1"}
    assert template.match(b"/m?target_port=1&target_host=h&mode=udp") == values
    assert template.match(b"/m?mode=udp&target_port=1&target_host=h&mode=udp") == values
    assert template.match(b"/m?target_port=1&target_host=h&mode=tcp") is None
    assert template.match(b"/m?target_port=1&target_host=h") is None


def test_literals_around_a_variable_do_not_overlap() -> None:
    template = Template("/aba{target_host}aba/{target_port}")
    assert template.match(b"/aba/1") is None
    assert template.match(b"/ababa/1") is None
    assert template.match(b"/abaxaba/1") == {"target_host": "x", "target_port": "1"}
    with pytest.raises(RequestRejected):
        template.match(b"/abaaba/1")


def test_other_variables() -> None:
    """CONNECT-IP and connect-tcp bring their own names (RFC 9484 §3)."""
    template = Template("/.well-known/masque/ip/{target}/{ipproto}/", required=("target", "ipproto"))
    path = template.expand(target="192.0.2.0/24", ipproto="*")
    assert path == "/.well-known/masque/ip/192.0.2.0%2F24/%2A/"
    assert template.match(path.encode()) == {"target": "192.0.2.0/24", "ipproto": "*"}
    assert Template("/ip", required=()).match(b"/ip") == {}


@given(HOSTS, PORTS, st.sampled_from(TEMPLATES))
def test_match_is_the_inverse_of_expand(host: str, port: int, text: str) -> None:
    template = Template(text)
    values = {"target_host": host, "target_port": str(port)}
    found = template.match(template.expand(**values).encode("ascii"))
    assert found == values
    assert parse_target(found["target_host"], found["target_port"]) == build_target(host, port)


PRINTABLE = st.text([chr(code) for code in range(0x21, 0x7F)], min_size=1, max_size=30)


@given(PRINTABLE, PRINTABLE, st.sampled_from(TEMPLATES))
def test_match_is_the_inverse_of_expand_for_any_value(host: str, port: str, text: str) -> None:
    template = Template(text)
    values = {"target_host": host, "target_port": port}
    assert template.match(template.expand(**values).encode("ascii")) == values


PATHS = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=20).map(lambda value: b"/.well-known/masque/udp/" + value + b"/443/"),
    st.text(string.hexdigits + "%/?&=.", max_size=20).map(lambda value: b"/.well-known/masque/udp/" + value.encode()),
    st.text(string.hexdigits + "%/?&=.", max_size=20).map(
        lambda value: b"/masque?target_host=" + value.encode() + b"&target_port=1"
    ),
)


@given(PATHS, st.sampled_from(TEMPLATES))
def test_any_path_is_matched_or_not_or_refused(path: bytes, text: str) -> None:
    template = Template(text)
    values = attempt(lambda: template.match(path))
    if isinstance(values, RequestRejected):
        assert values.status == 400
    elif values is not None:
        assert values.keys() == template.variables
        assert template.match(template.expand(**values).encode("ascii")) == values


@given(st.text(max_size=40) | st.text("/{}?&=+#;,*:%a ", max_size=30))
def test_any_template_is_compiled_or_refused(text: str) -> None:
    try:
        template = Template(text, required=())
    except LocalMisuse:
        return
    values = dict.fromkeys(template.variables, "x")
    assert template.match(template.expand(**values).encode("ascii")) == values
