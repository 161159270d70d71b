"""Command groups that also do something without a subcommand."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from dubstream.engines.errors import UsageError


class OwnOptionsGroup(TyperGroup):
    """A group whose options are its own: before a subcommand they would be read and then ignored."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As the base class; `UsageError` where options stand before the subcommand's name."""
        given = [
            parameter.opts[0]
            for parameter in self.params
            if getattr(ctx.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
        ]
        if given:
            raise UsageError(
                f"{', '.join(given)} before '{args[0]}', "
                f"expected the options of '{ctx.info_name} {args[0]}' after it",
                hint=f"dubstream {ctx.info_name} {args[0]} --help",
            )
        return super().resolve_command(ctx, args)
