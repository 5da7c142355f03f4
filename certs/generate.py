"""Makes a development authority and a server certificate: `python -m certs.generate [--out DIR] [NAME ...]`.

Writes ca.pem, server.pem and server.key; `relay.quic.development` says what they are good for.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from relay.quic.development import check_name, is_usable, write_certificates

__all__ = ["main"]


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m certs.generate", description="Make a development authority and server certificate."
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("names", nargs="*", default=["localhost", "127.0.0.1", "::1"], metavar="NAME")
    parser.add_argument("--if-needed", action="store_true", help="only when there is none, or it ends within a day")
    options = parser.parse_args()
    try:
        for name in options.names:
            check_name(name)
        if options.if_needed and is_usable(options.out):
            return 0
        options.out.mkdir(parents=True, exist_ok=True)
        write_certificates(options.out, options.names)
    except ValueError as error:
        print(f"certs.generate: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"certs.generate: cannot write to {options.out}: {error.strerror}", file=sys.stderr)
        return 2
    print(f"wrote ca.pem, server.pem and server.key to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
