"""MASQUE's protocols, sans-IO: bytes in, events and bytes out.

Everything public of the codecs is here. HTTP/3 has its own door, `masque.h3`, and so have the tunnels,
`masque.tunnel`, and tokens, `masque.privacypass`. Nothing in this package opens a socket, reads a clock, draws a
random number or writes a log; but a library that tokens of type 1 are made with draws its own numbers.
"""

from __future__ import annotations

from masque.capsule import CapsuleParser, CapsuleType, encode_capsule
from masque.connect import ConnectRequest, check_connect_response, connect_head, parse_connect
from masque.connect_udp import (
    CONNECT_UDP,
    ConnectUdpRequest,
    check_connect_udp_response,
    connect_udp_head,
    connect_udp_response_fields,
    parse_connect_udp,
)
from masque.datagram import MAX_QUARTER_STREAM_ID, MAX_UDP_PAYLOAD, encode_prefix, parse_context, parse_datagram
from masque.errors import ErrorCode, LimitExceeded, LocalMisuse, Malformed, MasqueError, Reach, RequestRejected
from masque.fields import CAPSULE_PROTOCOL_TRUE, get_field, get_fields, has_content_fields, parse_capsule_protocol
from masque.geo import (
    GEOHASH_HINT,
    IP_GEO_HINT,
    Location,
    check_country,
    check_geohash,
    check_region,
    geohash_distance,
    geohash_overlaps,
    parse_geohash_hint,
    parse_ip_geo_hint,
)
from masque.head import Fields, RequestHead, ResponseHead
from masque.proxy_status import ProxyErrorType, ProxyStatus, encode_proxy_status, parse_proxy_status
from masque.request import TunnelRequest, parse_request
from masque.target import (
    IPAddress,
    Target,
    build_target,
    encode_authority,
    parse_authority,
    parse_host,
    parse_port,
    parse_target,
)
from masque.template import DEFAULT_UDP_TEMPLATE, Template
from masque.varint import VARINT_MAX, encode_varint, parse_varint, varint_size
from masque.wire import Cursor

__all__ = [
    "CAPSULE_PROTOCOL_TRUE",
    "CONNECT_UDP",
    "DEFAULT_UDP_TEMPLATE",
    "GEOHASH_HINT",
    "IP_GEO_HINT",
    "MAX_QUARTER_STREAM_ID",
    "MAX_UDP_PAYLOAD",
    "VARINT_MAX",
    "CapsuleParser",
    "CapsuleType",
    "ConnectRequest",
    "ConnectUdpRequest",
    "Cursor",
    "ErrorCode",
    "Fields",
    "IPAddress",
    "LimitExceeded",
    "LocalMisuse",
    "Location",
    "Malformed",
    "MasqueError",
    "ProxyErrorType",
    "ProxyStatus",
    "Reach",
    "RequestHead",
    "RequestRejected",
    "ResponseHead",
    "Target",
    "Template",
    "TunnelRequest",
    "build_target",
    "check_connect_response",
    "check_connect_udp_response",
    "check_country",
    "check_geohash",
    "check_region",
    "connect_head",
    "connect_udp_head",
    "connect_udp_response_fields",
    "encode_authority",
    "encode_capsule",
    "encode_prefix",
    "encode_proxy_status",
    "encode_varint",
    "geohash_distance",
    "geohash_overlaps",
    "get_field",
    "get_fields",
    "has_content_fields",
    "parse_authority",
    "parse_capsule_protocol",
    "parse_connect",
    "parse_connect_udp",
    "parse_context",
    "parse_datagram",
    "parse_geohash_hint",
    "parse_host",
    "parse_ip_geo_hint",
    "parse_port",
    "parse_proxy_status",
    "parse_request",
    "parse_target",
    "parse_varint",
    "varint_size",
]
