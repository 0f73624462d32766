"""A live process held still, and given back as it was."""
