"""Counters and gauges: aggregates with enumerated labels, and nothing that points at one client or target.

A label can only be a member of a string enum, so a name or an address cannot become one by accident. The
data path keeps integers of its own and adds them once a turn.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Protocol

__all__ = [
    "CounterMetrics",
    "DropReason",
    "LimitName",
    "Metric",
    "MetricKind",
    "Metrics",
    "NoMetrics",
    "QuotaName",
    "TokenRefusal",
]


class MetricKind(Enum):
    """How a metric moves."""

    COUNTER = "counter"
    "Only up."
    GAUGE = "gauge"
    "Up and down: count -1 for what has ended."


class Metric(Enum):
    """Every metric there is: its name, how it moves, and what it says."""

    CONNECTIONS_OPENED = ("connections_opened", MetricKind.COUNTER, "QUIC connections whose handshake completed.")
    CONNECTIONS_CLOSED = ("connections_closed", MetricKind.COUNTER, "QUIC connections that ended.")
    CONNECTIONS_ACTIVE = ("connections_active", MetricKind.GAUGE, "QUIC connections now.")
    HANDSHAKES_FAILED = ("handshakes_failed", MetricKind.COUNTER, "Handshakes that did not complete.")
    RETRIES_SENT = ("retries_sent", MetricKind.COUNTER, "Retry packets sent to have clients prove their address.")
    VERSION_NEGOTIATIONS = ("version_negotiations", MetricKind.COUNTER, "Version Negotiation packets sent.")
    REQUESTS_REFUSED = ("requests_refused", MetricKind.COUNTER, "Exchanges refused, by outcome.")
    TUNNELS_OPENED = ("tunnels_opened", MetricKind.COUNTER, "Tunnels accepted, by kind.")
    TUNNELS_CLOSED = ("tunnels_closed", MetricKind.COUNTER, "Tunnels that ended, by kind and outcome.")
    TUNNELS_ACTIVE = ("tunnels_active", MetricKind.GAUGE, "Tunnels now, by kind.")
    DATAGRAMS_TO_TARGET = ("datagrams_to_target", MetricKind.COUNTER, "UDP payloads relayed to targets.")
    DATAGRAMS_TO_CLIENT = ("datagrams_to_client", MetricKind.COUNTER, "UDP payloads relayed to clients.")
    BYTES_TO_TARGET = ("bytes_to_target", MetricKind.COUNTER, "Payload bytes relayed to targets, by kind.")
    BYTES_TO_CLIENT = ("bytes_to_client", MetricKind.COUNTER, "Payload bytes relayed to clients, by kind.")
    DATAGRAMS_DROPPED = ("datagrams_dropped", MetricKind.COUNTER, "Datagrams and packets dropped, by reason.")
    LIMITS_HIT = ("limits_hit", MetricKind.COUNTER, "Times that a bound of the settings bit, by limit.")
    QUOTAS_HIT = ("quotas_hit", MetricKind.COUNTER, "Times that a principal's quota bit, by quota.")
    PRINCIPALS_TRACKED = ("principals_tracked", MetricKind.GAUGE, "Principals whose use is remembered for quotas.")
    HOOK_FAILURES = ("hook_failures", MetricKind.COUNTER, "Hooks that raised or gave no verdict, by phase.")
    TOKENS_SPENT = ("tokens_spent", MetricKind.COUNTER, "Uses of tokens that admitted a client.")
    TOKENS_REFUSED = ("tokens_refused", MetricKind.COUNTER, "Tokens that admitted nobody, by reason.")
    DIRECTORIES_FETCHED = (
        "directories_fetched",
        MetricKind.COUNTER,
        "Issuers' directories that were fetched and read.",
    )
    DIRECTORIES_FAILED = (
        "directories_failed",
        MetricKind.COUNTER,
        "Attempts to fetch a directory that gave no keys.",
    )
    DNS_QUERIES = ("dns_queries", MetricKind.COUNTER, "Questions sent to upstream resolvers.")
    DNS_CACHE_HITS = ("dns_cache_hits", MetricKind.COUNTER, "Questions answered from the cache.")
    DNS_STALE_ANSWERS = ("dns_stale_answers", MetricKind.COUNTER, "Old answers used because no new one came in time.")
    DNS_FAILURES = ("dns_failures", MetricKind.COUNTER, "Names that could not be resolved.")
    EGRESS_SOURCES_LOST = ("egress_sources_lost", MetricKind.COUNTER, "Egress addresses that could not be bound.")
    EGRESS_PORTS_EXHAUSTED = (
        "egress_ports_exhausted",
        MetricKind.COUNTER,
        "Times that an egress address had no free port towards a target.",
    )

    def __init__(self, metric_name: str, kind: MetricKind, help_text: str) -> None:
        self.metric_name = metric_name
        "The name that operators see."
        self.kind = kind
        "How it moves."
        self.help_text = help_text
        "What it says, in a sentence."


class DropReason(StrEnum):
    """Why a datagram or packet was dropped."""

    QUEUE_FULL = "queue_full"
    "The connection's queue of outgoing datagrams was full; the oldest went."
    TOO_BIG = "too_big"
    "It did not fit into a QUIC packet to the client."
    NO_TUNNEL = "no_tunnel"
    "It belonged to no tunnel, or to an unknown context (RFC 9298 §4)."
    EARLY_FULL = "early_full"
    "More came before the answer than is kept."
    TARGET_FULL = "target_full"
    "The socket towards the target took no more."
    UNROUTABLE = "unroutable"
    "A UDP packet on the listening port that belongs to no connection."


class TokenRefusal(StrEnum):
    """Why a token admitted nobody. The answer is 407; for the last four 503."""

    MALFORMED = "malformed"
    "The credentials hold no token, or one without the structure of its type."
    UNKNOWN_TYPE = "unknown_type"
    "Its type is unknown; it may be a greased one."
    WRONG_CHALLENGE = "wrong_challenge"
    "It answers no challenge that is accepted now."
    UNKNOWN_KEY = "unknown_key"
    "It names a key that the issuer does not have."
    WRONG_TYPE = "wrong_type"
    "It is of another type than the key that it names."
    BAD_AUTHENTICATOR = "bad_authenticator"
    "The key did not make it."
    SPENT = "spent"
    "It was used as often as it may be."
    NO_KEYS = "no_keys"
    "The issuer's keys are not known yet: its directory could not be fetched so far."
    BUSY = "busy"
    "Too many tokens wait for their check."
    CHECK_FAILED = "check_failed"
    "The check could not be made."
    STORE_AWAY = "store_away"
    "The store of spent tokens cannot be asked."


class LimitName(StrEnum):
    """The bounds of `settings.limits`, as labels."""

    STREAMS = "streams"
    CONNECTIONS = "connections"
    STRANGERS = "strangers"
    IDLE = "idle"
    HANDSHAKE = "handshake"
    UDP_IDLE = "udp_idle"
    TCP_IDLE = "tcp_idle"
    DECIDE = "decide"
    CONNECT = "connect"
    FIELD_SECTION = "field_section"
    EARLY_DATA = "early_data"
    EARLY_DATAGRAMS = "early_datagrams"
    CAPSULE = "capsule"
    DATAGRAM_QUEUE = "datagram_queue"
    TUNNEL_BUFFER = "tunnel_buffer"
    CONNECTION_BUFFER = "connection_buffer"
    DRAIN = "drain"
    WRITE_STALL = "write_stall"


class QuotaName(StrEnum):
    """The quotas of `settings.quotas`, as labels."""

    TUNNELS = "tunnels"
    "A principal had as many tunnels as it may have at the same time."
    RATE = "rate"
    "It asked for new tunnels faster than it may."
    BYTES = "bytes"
    "Its bytes of the period were used up: a tunnel was refused, or closed."
    PRINCIPALS = "principals"
    "There was no room to remember one more principal."


class Metrics(Protocol):
    """Where counts go. An implementation must return at once and may not raise for a declared metric."""

    def count(self, metric: Metric, n: int = 1, *labels: StrEnum) -> None:
        """Add to a counter, or move a gauge up or down.

        Args:
            metric: what is counted.
            n: how much; negative for gauges only.
            labels: members of enums that split the count, always in the same order.
        """
        ...


class NoMetrics:
    """Counts nothing."""

    __slots__ = ()

    def count(self, metric: Metric, n: int = 1, *labels: StrEnum) -> None:
        """Do nothing."""


class CounterMetrics:
    """Counts in memory, to be read by tests and by whoever publishes the figures."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[tuple[Metric, tuple[StrEnum, ...]], int] = {}

    def count(self, metric: Metric, n: int = 1, *labels: StrEnum) -> None:
        """Add to a counter, or move a gauge up or down."""
        key = (metric, labels)
        self._values[key] = self._values.get(key, 0) + n

    def value(self, metric: Metric, *labels: StrEnum) -> int:
        """Return the sum of all counts of a metric whose labels begin with these; 0 if none came."""
        size = len(labels)
        return sum(n for (found, given), n in self._values.items() if found is metric and given[:size] == labels)

    def snapshot(self) -> dict[tuple[str, tuple[str, ...]], int]:
        """Return all counts so far, by metric name and label values."""
        return {
            (metric.metric_name, tuple(label.value for label in labels)): n
            for (metric, labels), n in self._values.items()
        }
