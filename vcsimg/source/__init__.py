"""Pairing captures with source revisions."""

from vcsimg.source.checkout import revision_at

__all__ = ["revision_at"]
