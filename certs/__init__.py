"""Development certificates."""
