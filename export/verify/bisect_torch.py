"""A PyTorch module as the one who knows the right tensors of the ONNX graph it was exported to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import onnx
import torch

from dubstream.export.fidelity import Array
from dubstream.export.verify.bisect import NOISE, first_fault
from dubstream.export.verify.bisect_graph import Feeds, Graph, onnx_runtime
from dubstream.export.verify.bisect_search import Fault

_ENTRY = " (argument)"
Take = Callable[[str, torch.Tensor], None]


class TorchReference:
    """A module's results as the right values of the tensors that leave it in the ONNX graph.

    Known are the network's outputs, the result of every module that runs once and that exactly one tensor of
    that shape leaves in the graph, and likewise the only argument of a module. Where clean-up has merged a
    module with another the tensor is not there; the stretch between its neighbours is then judged as one.

    Args:
        module: the network in the form that was exported.
        inputs: by name, in the order of the module's arguments.
        outputs: names of its outputs, in order.
        prefix: dotted path of `module` in the graph with a dot at its end; "" where it is the whole.
    """

    def __init__(
        self, module: torch.nn.Module, inputs: Feeds, outputs: Sequence[str], prefix: str = ""
    ) -> None:
        self._module, self._prefix = module, prefix
        self._inputs = [torch.from_numpy(array) for array in inputs.values()]
        self._outputs = list(outputs)
        self._place_of: dict[str, str] = {}
        self._held: dict[str, Array] = {}

    def knows(self, graph: Graph) -> set[str]:
        shapes, calls = dict[str, tuple[int, ...]](), Counter[str]()

        def note(place: str, tensor: torch.Tensor) -> None:
            shapes[place] = tuple(tensor.shape)
            calls[place] += 1

        self._run(note)
        crossing = _crossing(graph)
        for place, shape in shapes.items():
            tensors = crossing.get(self._prefix + place, set())
            if calls[place] == 1 and len(tensors) == 1:
                (tensor,) = tensors
                if _fits(graph.shape_of(tensor), shape):
                    self._place_of[tensor] = place
        return {*self._place_of, *self._outputs} & graph.maker.keys()

    def values(self, names: Iterable[str]) -> dict[str, Array]:
        names = list(names)
        missing = {self._place_of.get(name, ""): name for name in names if name not in self._held}

        def hold(place: str, tensor: torch.Tensor) -> None:
            if place in missing:
                self._held[missing[place]] = tensor.numpy().copy()  # what comes after may change it in place

        if missing:
            results = self._run(hold)
            self._held |= {name: got.numpy() for name, got in zip(self._outputs, results, strict=True)}
        return {name: self._held[name] for name in names}

    def keep(self, names: Iterable[str]) -> None:
        kept = {*names, *self._outputs}
        self._held = {name: array for name, array in self._held.items() if name in kept}

    def _run(self, take: Take) -> list[torch.Tensor]:
        handles = _watch(self._module, take)
        try:
            with torch.inference_mode():
                got = self._module(*self._inputs)
        finally:
            for handle in handles:
                handle.remove()
        return [got] if isinstance(got, torch.Tensor) else list(got)


def torch_fault(
    module: torch.nn.Module,
    model: onnx.ModelProto,
    inputs: Feeds,
    outputs: Sequence[str],
    *,
    threads: int = 1,
    prefix: str = "",
) -> Fault | None:
    """`first_fault` of a float32 ONNX model in ONNX Runtime against the PyTorch module it was exported from.

    Args:
        module, outputs, prefix: see `TorchReference`.
        inputs: by name, in the order of the module's arguments.
    """
    reference = TorchReference(module, inputs, outputs, prefix)
    return first_fault(model, reference, inputs, load=onnx_runtime(threads), noise=NOISE["fp32"])


def _watch(root: torch.nn.Module, take: Take) -> list[torch.utils.hooks.RemovableHandle]:
    """Call `take` with the place and the tensor for every tensor that enters or leaves a module of `root`.

    Places are the module's path, with `_ENTRY` behind it for an argument. A module that stands in several
    places is told apart by who calls it.
    """
    paths: dict[torch.nn.Module, list[str]] = {}
    for path, module in root.named_modules(remove_duplicate=False):
        paths.setdefault(module, []).append(path)
    running: list[str] = []

    def enter(module: torch.nn.Module, arguments: tuple[object, ...]) -> None:
        around = f"{running[-1]}." if running and running[-1] else ""
        here = (path for path in paths[module] if path.startswith(around))
        running.append(next(here, paths[module][0]))
        if len(arguments) == 1 and running[-1] and isinstance(arguments[0], torch.Tensor):
            take(running[-1] + _ENTRY, arguments[0])

    def leave(module: torch.nn.Module, _: object, result: object) -> None:
        path = running.pop()
        if path and isinstance(result, torch.Tensor):
            take(path, result)

    return [
        handle
        for module in paths
        for handle in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))
    ]


def _crossing(graph: Graph) -> dict[str, set[str]]:
    """By place, see `_watch`, the tensors of the graph that cross it."""
    found: dict[str, set[str]] = {}
    for tensor, at in graph.maker.items():
        inside = set(graph.scopes[at])
        for reader in graph.readers(tensor):
            reading = set(graph.scopes[reader])
            for path in inside - reading:
                found.setdefault(path, set()).add(tensor)
            for path in reading - inside:
                found.setdefault(path + _ENTRY, set()).add(tensor)
        for path in inside if tensor in graph.outputs else ():
            found.setdefault(path, set()).add(tensor)
    for tensor in graph.inputs:
        for reader in graph.readers(tensor):
            for path in graph.scopes[reader]:
                found.setdefault(path + _ENTRY, set()).add(tensor)
    return found


def _fits(declared: tuple[int | None, ...] | None, shape: tuple[int, ...]) -> bool:
    return (
        declared is not None
        and len(declared) == len(shape)
        and all(want in (None, got) for want, got in zip(declared, shape, strict=True))
    )
