"""Clean-up of a freshly converted ONNX graph, in the time a large network allows."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.pattern import Constant, RewriteRule
from onnxscript.rewriter.rules import common as rules

_ROUNDS = 2  # folding exposes rewrites and they expose folding; a third round finds nothing in our networks


def _exactly(value: float) -> Constant:
    """A constant to match. By default anything within 1e-8 matches: all of a demodulation's epsilon."""
    return Constant(value, rel_tol=0.0, abs_tol=0.0)


def _as_it_was(op: Any, x: Any, **_: Any) -> Any:
    return op.Identity(x)


# The exporter's own optimisation applies these and more. One of the others (two slices become a split)
# compares every node with all others and takes minutes for L-Net; it changes nothing there.
_RULES = [
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.reshape_reshape_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.materialize_reshape_shape_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    RewriteRule(lambda op, x: op.Add(x, _exactly(0.0)), _as_it_was, name="add 0"),
    RewriteRule(lambda op, x: op.Sub(x, _exactly(0.0)), _as_it_was, name="subtract 0"),
    RewriteRule(lambda op, x: op.Mul(x, _exactly(1.0)), _as_it_was, name="multiply by 1"),
    RewriteRule(lambda op, x: op.Div(x, _exactly(1.0)), _as_it_was, name="divide by 1"),
    rules.normalize_pad_format_conv_rule,
    rules.fuse_pad_into_conv_rule,
]

_SCOPES = "pkg.torch.onnx.name_scopes"  # which module a node came from


def simplify(model: ir.Model) -> None:
    """Inline functions, fold constants, drop what does nothing or is computed twice; in place."""
    passes.InlinePass()(model)
    for _ in range(_ROUNDS):
        fold_constants_ir(model, onnx_shape_inference=True)
        rewrite(model, _RULES)
    ir.passes.Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    )(model)


def drop_metadata(model: ir.Model) -> None:
    """Remove the exporter's notes but the module a node came from.

    They hold paths of this machine, and the digest would change with them.
    """
    model.metadata_props.clear()
    graph = model.graph
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()
    for node in graph.all_nodes():
        scopes = node.metadata_props.get(_SCOPES)
        node.metadata_props.clear()
        if scopes is not None:
            node.metadata_props[_SCOPES] = scopes
        for value in node.outputs:
            value.metadata_props.clear()
