"""`python -m dubstream.runtime.cli`: the same as the console script."""

from dubstream.runtime.cli import main

main()
