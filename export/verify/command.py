"""`dubstream verify`: whether exports and engines still are what the PyTorch networks say."""

from __future__ import annotations

import typer

verify_app = typer.Typer(help="Prove that exports, engines and dubbed videos still are what they should be.")


@verify_app.callback(invoke_without_command=True)
def verify(context: typer.Context) -> None:
    """Compare PyTorch, ONNX and engines, link by link; exit 1 when one does not hold."""
