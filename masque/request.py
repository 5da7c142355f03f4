"""From a request's head to the kind of tunnel it asks for (RFC 9110 §9.3.6, RFC 9220 §3).

Each kind has its own module; this one only looks at method and protocol. Nothing but CONNECT lives here.
"""

from __future__ import annotations

from collections.abc import Sequence

from masque.connect import ConnectRequest, parse_connect
from masque.connect_udp import ConnectUdpRequest, parse_connect_udp
from masque.errors import RequestRejected
from masque.head import RequestHead
from masque.template import Template

__all__ = ["TunnelRequest", "parse_request"]

TunnelRequest = ConnectRequest | ConnectUdpRequest
"A request of any kind."


def parse_request(head: RequestHead, udp_templates: Sequence[Template]) -> TunnelRequest:
    """Read a request for a tunnel of any kind.

    Args:
        head: a request's head.
        udp_templates: the templates of CONNECT-UDP that are served; none when it is not.

    Returns:
        The request.

    Raises:
        RequestRejected: the method is not CONNECT (status 405; the answer owes an Allow field, RFC 9110 §15.5.6), the
            protocol is not known (status 501, RFC 9220 §3), the path fits no template (status 404), or the request
            is not valid (status 400).
    """
    if head.method != b"CONNECT":
        raise RequestRejected("a method other than CONNECT", status=405)
    if head.protocol is None:
        return parse_connect(head)
    return parse_connect_udp(head, udp_templates)
