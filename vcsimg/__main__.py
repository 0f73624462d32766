"""`python -m vcsimg` is `vcsimg`."""

from vcsimg.cli.main import main

main()
