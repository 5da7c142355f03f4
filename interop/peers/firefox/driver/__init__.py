"""A driver around Firefox: pages through a relay, over CONNECT and over CONNECT-UDP with HTTP/3 inside."""
