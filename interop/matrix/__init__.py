"""The interop suite: peers in other languages through our relay, our client through other servers."""
