"""aioquic's own HTTP/3 under remote control: `python -m driver` in this package's folder."""
