"""`python -m dubstream.export`: the export command alone, as `dub` runs it in a process of its own."""

from __future__ import annotations

import signal
import sys
from types import FrameType

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143


def main() -> None:
    """Run the command; errors end on one line with their exit code, signals with 130 or 143."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        import typer

        from dubstream.engines.errors import DubError
        from dubstream.export.command import export_command

        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(export_command)
        try:
            app(prog_name="python -m dubstream.export")
        except DubError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    # Raised like Ctrl-C, so that temporary files are removed on the way out.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(EXIT_TERMINATED)


if __name__ == "__main__":
    main()
