"""Cases that any MASQUE server should pass, clients that carry them out, and the report: `relay interop`."""
