"""The benchmark: relays on loopback, measured by the CPU time that they alone spend for a unit of work."""
