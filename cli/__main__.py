"""`python -m morphogen.cli` is `morphogen`."""

from . import main

main()
