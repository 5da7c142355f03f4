"""Tests of relay.spent."""
