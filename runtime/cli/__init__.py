"""The command line: one verb a command, errors on one line, exit codes that schedulers understand."""

from __future__ import annotations

import os
import sys

from dubstream.runtime.cli.signals import Terminated, install_handlers


def main() -> None:
    """Entry point of the console script `dubstream`."""
    # Before any heavy import: a signal during start-up must end as cleanly as one during work.
    install_handlers()
    try:
        from dubstream.runtime.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    except Terminated:
        code = 143
    except BrokenPipeError:
        # The reader of our output went away (`dubstream doctor | head`); nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
