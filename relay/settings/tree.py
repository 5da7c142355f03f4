"""The settings tree: every value an operator may choose, with its default and its bounds.

The tree is frozen and refuses what it does not know. Making a `Settings` reads nothing; `relay.settings.load`
brings the sources together. The string below a field is its documentation, and `relay check` prints it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from masque.errors import LocalMisuse
from masque.template import DEFAULT_UDP_TEMPLATE, Template
from relay.settings.values import parse_basic_entry, parse_duration, parse_preshared_entry, parse_upstream

__all__ = [
    "AuthSettings",
    "EgressSettings",
    "LimitSettings",
    "ListenSettings",
    "PolicySettings",
    "QuicSettings",
    "ResolverSettings",
    "Settings",
    "TelemetrySettings",
    "TemplateSettings",
    "TlsSettings",
]


def _within(low: int, high: int) -> AfterValidator:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"must be {low}..{high}")
        return value

    return AfterValidator(check)


def _lasting(low: float, high: float) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if not low <= value.total_seconds() <= high:
            raise ValueError(f"must last {low:g}..{high:g} seconds")
        return value

    return AfterValidator(check)


def _sized(low: int, high: int) -> AfterValidator:
    def check(value: ByteSize) -> ByteSize:
        if not low <= value <= high:
            raise ValueError(f"must be {ByteSize(low).human_readable()}..{ByteSize(high).human_readable()}")
        return value

    return AfterValidator(check)


def _readable_by(parse: Callable[[str], object]) -> AfterValidator:
    def check(value: str) -> str:
        parse(value)
        return value

    return AfterValidator(check)


def _sf_token(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]{0,127}", value):
        raise ValueError("must be a structured field token: a letter, then letters, digits, - . _ and the like")
    return value


def _realm(value: str) -> str:
    if not re.fullmatch(r"[\x20\x21\x23-\x5b\x5d-\x7e]{1,128}", value):
        raise ValueError("must be 1..128 printable ASCII characters without quotation mark and backslash")
    return value


def _udp_template(value: str) -> str:
    try:
        Template(value)
    except LocalMisuse as error:
        raise ValueError(f"must be a template of CONNECT-UDP: {error.detail}") from None
    return value


def _ip_text(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        raise ValueError("must be an IP address; names are not possible here") from None


def _network(value: object) -> object:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError('must be a network, like "192.0.2.0/24"')
    try:
        return ip_network(value)
    except ValueError:
        pass
    try:
        loose = ip_network(value, strict=False)
    except ValueError:
        raise ValueError('must be a network, like "192.0.2.0/24"') from None
    raise ValueError(f'must be a network with all host bits zero, like "{loose}"')


Duration: TypeAlias = Annotated[timedelta, BeforeValidator(parse_duration)]
Network: TypeAlias = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
PortNumber: TypeAlias = Annotated[int, _within(1, 65535)]
_MIB = 1024 * 1024


class _Branch(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        hide_input_in_errors=True,
    )


class ListenSettings(_Branch):
    """Where clients reach the relay."""

    host: Annotated[str, AfterValidator(_ip_text)] = "127.0.0.1"
    """The address to listen on. Only this machine reaches the default; `::` or `0.0.0.0` opens it to others."""
    port: Annotated[int, _within(0, 65535)] = 4433
    """The UDP port; 0 takes any free one."""


class TlsSettings(_Branch):
    """How the relay proves who it is. Both files are needed to serve."""

    certificate: Path | None = None
    """A PEM file with the certificate and its chain."""
    private_key: Path | None = None
    """A PEM file with the certificate's private key."""


class QuicSettings(_Branch):
    """The QUIC transport."""

    engine: Literal["qh3", "aioquic"] = "qh3"
    """The QUIC library: qh3 is the fast one, aioquic the reference."""
    max_datagram_size: Annotated[int, _within(1232, 1472)] = 1350
    """The largest UDP payload sent, in bytes. Below 1350 an inner QUIC handshake of 1252 bytes does not fit."""
    retry_threshold: Annotated[int, _within(0, 1_000_000)] = 64
    """Half-open handshakes above which new clients must prove their address (RFC 9000 §8.1.2); 0 is always."""
    reset_key: Path | None = None
    """A file with 32 random bytes or more, kept over restarts: clients of connections that a restart cut learn so at
    once by a stateless reset (RFC 9000 §10.3). Without it they wait for their idle time-out."""
    receive_buffer: Annotated[ByteSize, _sized(64 * 1024, 256 * _MIB)] = ByteSize(4 * _MIB)
    """The kernel's receive buffer of the listening socket; the kernel may grant less."""
    send_buffer: Annotated[ByteSize, _sized(64 * 1024, 256 * _MIB)] = ByteSize(4 * _MIB)
    """The kernel's send buffer of the listening socket; the kernel may grant less."""


class TemplateSettings(_Branch):
    """Where tunnels are asked for: URI templates as RFC 6570 and RFC 9298 §2 have them."""

    udp: tuple[Annotated[str, AfterValidator(_udp_template)], ...] = (DEFAULT_UDP_TEMPLATE,)
    """Templates of CONNECT-UDP with the variables `target_host` and `target_port`. Empty: no CONNECT-UDP."""


class AuthSettings(_Branch):
    """Who may use the relay. With no entry and `open` false, nobody."""

    preshared: tuple[Annotated[str, _readable_by(parse_preshared_entry)], ...] = Field(default=(), repr=False)
    """Keys, each as `sha256:` and the SHA-256 of the key in hex. Good for the Preshared and the Bearer scheme."""
    basic: tuple[Annotated[str, _readable_by(parse_basic_entry)], ...] = Field(default=(), repr=False)
    """Users of the Basic scheme, each as `user:scrypt:n,r,p:salt:hash`."""
    open: bool = False
    """Admit everybody. An open relay is used by strangers within hours."""
    realm: Annotated[str, AfterValidator(_realm)] = "masque-relay"
    """The realm of challenges (RFC 9110 §11.5)."""

    @model_validator(mode="after")
    def _one_entry_per_user(self) -> AuthSettings:
        users = [entry.partition(":")[0] for entry in self.basic]
        if len(set(users)) != len(users):
            raise ValueError("basic: must have one entry per user")
        return self


class PolicySettings(_Branch):
    """Which targets may be reached. Without rules: all that is globally reachable, and nothing else."""

    allow: tuple[Network, ...] = ()
    """Networks that may be reached although they are not globally reachable."""
    deny: tuple[Network, ...] = ()
    """Networks that may not be reached. Goes before `allow`."""
    denied_ports: tuple[PortNumber, ...] = (25,)
    """Target ports that are refused."""


class ResolverSettings(_Branch):
    """How the relay resolves targets' names."""

    upstreams: tuple[Annotated[str, _readable_by(parse_upstream)], ...] = ()
    """Recursive resolvers in order of preference: address or address:port. Empty: those of the system."""
    timeout: Annotated[Duration, _lasting(0.05, 60)] = timedelta(seconds=5)
    """How long a name may take in all, over all upstreams."""
    max_queries: Annotated[int, _within(1, 65536)] = 512
    """Questions that may be under way at the same time."""
    cache_entries: Annotated[int, _within(0, 10_000_000)] = 10_000
    """Answers kept; the least recently used goes first."""
    min_ttl: Annotated[Duration, _lasting(0, 3600)] = timedelta(seconds=5)
    """Answers are kept at least this long."""
    max_ttl: Annotated[Duration, _lasting(0, 604_800)] = timedelta(hours=1)
    """Answers are kept no longer than this."""

    @model_validator(mode="after")
    def _ttl_order(self) -> ResolverSettings:
        if self.min_ttl > self.max_ttl:
            raise ValueError("min_ttl, max_ttl: the first must not be longer than the second")
        return self


class EgressSettings(_Branch):
    """The addresses that targets see."""

    ipv4: IPv4Address | None = None
    """The source address towards IPv4 targets; without it the system chooses."""
    ipv6: IPv6Address | None = None
    """The source address towards IPv6 targets; without it the system chooses."""


class LimitSettings(_Branch):
    """The bounds of everything that a client or a target could make grow."""

    streams: Annotated[int, _within(1, 65536)] = 100
    """Bidirectional streams that a client may have open on a connection."""
    connections: Annotated[int, _within(1, 10_000_000)] = 10_000
    """Connections at the same time, half-open ones included."""
    strangers: Annotated[int, _within(1, 10_000_000)] = 256
    """Connections on which nobody was authenticated yet. For one more, the oldest of them is closed: each may hold a
    whole receive window of memory."""
    idle: Annotated[Duration, _lasting(1, 3600)] = timedelta(seconds=60)
    """A connection on which nothing arrives for so long is closed."""
    handshake: Annotated[Duration, _lasting(0.1, 300)] = timedelta(seconds=10)
    """How long a handshake may take."""
    udp_idle: Annotated[Duration, _lasting(1, 86_400)] = timedelta(seconds=120)
    """A UDP tunnel without a datagram for so long is closed. RFC 9298 §6.1 advises not less than 2 minutes."""
    tcp_idle: Annotated[Duration, _lasting(1, 86_400)] = timedelta(seconds=300)
    """A TCP tunnel without a byte for so long is closed."""
    decide: Annotated[Duration, _lasting(0.1, 300)] = timedelta(seconds=15)
    """How long authentication, policy and resolving, with all hooks, may take before connecting begins."""
    connect: Annotated[Duration, _lasting(0.1, 300)] = timedelta(seconds=10)
    """How long connecting to a target may take, over all its addresses."""
    field_section: Annotated[ByteSize, _sized(1024, _MIB)] = ByteSize(16 * 1024)
    """The largest header section, counted as RFC 9114 §4.2.2 does."""
    early_data: Annotated[ByteSize, _sized(0, 16 * _MIB)] = ByteSize(64 * 1024)
    """Bytes of a TCP tunnel kept before the answer."""
    early_datagrams: Annotated[int, _within(0, 4096)] = 32
    """Datagrams of a UDP tunnel kept before the answer."""
    capsule: Annotated[ByteSize, _sized(1500, 16 * _MIB)] = ByteSize(64 * 1024)
    """The largest capsule that is read (RFC 9297 §3.2)."""
    datagram_queue: Annotated[int, _within(1, 65536)] = 256
    """Datagrams waiting to be sent on a connection; the oldest is dropped."""
    tunnel_buffer: Annotated[ByteSize, _sized(64 * 1024, 1024 * _MIB)] = ByteSize(4 * _MIB)
    """Stream data buffered for one tunnel, each way."""
    connection_buffer: Annotated[ByteSize, _sized(64 * 1024, 8192 * _MIB)] = ByteSize(32 * _MIB)
    """Stream data buffered for all tunnels of a connection."""
    drain: Annotated[Duration, _lasting(0, 86_400)] = timedelta(seconds=30)
    """How long tunnels may go on after the relay was asked to stop."""
    write_stall: Annotated[Duration, _lasting(0.1, 3600)] = timedelta(seconds=10)
    """How long a target may take no byte while its full buffer holds up the whole connection's reading."""

    @model_validator(mode="after")
    def _buffer_order(self) -> LimitSettings:
        if self.tunnel_buffer > self.connection_buffer:
            raise ValueError("tunnel_buffer, connection_buffer: the first must not be larger than the second")
        return self


class TelemetrySettings(_Branch):
    """What the relay says of itself."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level of log lines."""
    format: Literal["console", "json"] = "console"
    """Log lines for people or for machines."""
    debug_addresses: bool = False
    """Let addresses and names into the log. Breaks the privacy of all clients; cannot be set by the environment."""


class Settings(BaseSettings):
    """All settings of a relay. Constructing it reads neither files nor the environment."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    identity: Annotated[str, AfterValidator(_sf_token)] = "masque-relay"
    """The relay's name in `Proxy-Status` (RFC 9209 §2); a service's name, not a machine's."""
    listen: ListenSettings = Field(default_factory=ListenSettings)
    tls: TlsSettings = Field(default_factory=TlsSettings)
    quic: QuicSettings = Field(default_factory=QuicSettings)
    templates: TemplateSettings = Field(default_factory=TemplateSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    resolver: ResolverSettings = Field(default_factory=ResolverSettings)
    egress: EgressSettings = Field(default_factory=EgressSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the constructor only: `relay.settings.load` is the one reader of the sources."""
        return (init_settings,)
