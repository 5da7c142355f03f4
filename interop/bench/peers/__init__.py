"""The comparison: the relay beside Envoy, masque-go and a CONNECT proxy on quic-go, in one run."""
