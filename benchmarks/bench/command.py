"""`dubstream bench`: what every network costs, and whether it still costs what it did."""

from __future__ import annotations

import typer

bench_app = typer.Typer(help="Time networks and dubs; compare with a saved baseline.", no_args_is_help=False)
"""Further subjects attach themselves as commands: `dubstream bench dub`, `dubstream bench report`."""


@bench_app.callback(invoke_without_command=True)
def bench(context: typer.Context) -> None:
    """What every network costs."""
    if context.invoked_subcommand is not None:
        return
