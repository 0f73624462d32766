"""Bytes to XOR-compressed bytes and back: pure functions."""
