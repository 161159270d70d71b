"""Commands that are imported when they are called.

A dub needs no bench, and a list of the commands needs none of them: until one is called, its name and the
line that tells what it does are all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


class Deferred(NamedTuple):
    """A command that may never be needed.

    Attributes:
        line: what it does, as its own help begins.
        mount: imports it and attaches it to an app, under its name.
    """

    line: str
    mount: Callable[[typer.Typer], object]


class LazyGroup(TyperGroup):
    """A group of `Deferred` commands; a subclass names them.

    Attributes:
        deferred: by name, in the order of the list.
    """

    deferred: ClassVar[Mapping[str, Deferred]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, one in self.deferred.items():
            self.add_command(TyperCommand(name, callback=None, help=one.line))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As the base class, with the command itself in the place of its line."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed if name is None else imported(name, self.deferred[name]), rest


@cache  # a group of commands must not get its members twice
def imported(name: str, deferred: Deferred) -> Any:
    """The command itself, imported once."""
    app = typer.Typer()
    deferred.mount(app)
    return get_group(app).commands[name]
