"""Graphs that ``make_fx`` has traced, with less to do at each replay: what depends on constants alone is computed once.

Each function changes a graph in place and keeps what it computes.
"""

from __future__ import annotations

import linecache
import logging
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, fx
from torch._functorch.compile_utils import fx_graph_cse
from torch.fx.graph_module import _loader

from ocp_dc.errors import InputError

_aten = torch.ops.aten
_library = torch.library.Library("ocp_dc", "FRAGMENT")
# the last argument of some operations: which of their results are wanted
MASK = re.compile(r", bool\[\d\] \w+\)")
# of a tensor argument they take the shape alone
WITH_SUM = {
    _aten.mul.Tensor: _aten.addcmul.default,
    _aten.mm.default: _aten.addmm.default,
    _aten.bmm.default: _aten.baddbmm.default,
}
FACTORIES = (_aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.new_zeros, _aten.new_ones, _aten.new_full)


def simplify(module: fx.GraphModule, living: dict[str, Tensor]) -> None:
    """Simplify a traced function.

    Args:
        living: a tensor for each of the first inputs, which is put in its place: not copied, so that whoever changes it
            changes what the graph computes.

    Raises:
        InputError: a replay would not repeat the step: it draws random numbers, or changes a tensor that has views.
    """
    graph = module.graph
    _refuse_random_numbers(graph)
    _without_mutation(graph)
    _bind(module, living)
    _fold_constants(module, set(living))
    _drop_views_of_all(graph)
    _transpose_sums(graph)
    _drop_views_of_all(graph)
    module.graph = fx_graph_cse(graph)
    module.graph.eliminate_dead_code()
    _fuse_sums(module.graph)
    _own_outputs(module.graph)
    _bind_masks(module.graph)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()


@contextmanager
def sources_forgotten() -> Iterator[None]:
    """What is traced in the block leaves no source code, which torch.fx keeps of every graph until the process ends."""
    known = set(_loader.eval_cache)
    try:
        yield
    finally:
        for name in _loader.eval_cache.keys() - known:
            del _loader.eval_cache[name]
            linecache.cache.pop(name, None)


def scripted(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """The function of a module, with its operations called from C++: Python takes a microsecond or two for each.

    TorchScript runs them as they are, without its own rewriting. It cannot call ``full_like`` of a number of another
    type, which functions of it then call from Python as before. What ``torch.jit.trace`` makes, with all its constants,
    stays in memory until the process ends; this function goes with its last reference.
    """

    def call(*given: Tensor) -> Sequence[Tensor]:
        with torch.jit.optimized_execution(False):
            return function(*given)

    try:
        with torch.no_grad():
            traced, no_names = lambda *given: tuple(module(*given)), lambda _: ""
            graph, _ = torch._C._create_graph_by_tracing(traced, tuple(inputs), no_names, True, False)
            function = torch._C._create_function_from_graph("replay", graph)
            call(*inputs)
    except RuntimeError as error:
        logging.debug(f"operations are called from Python: {error}")
        return module.forward
    return call


def _bind_masks(graph: fx.Graph) -> None:
    """Operations with a mask, as the derivatives of normalizations, become those of this mask alone.

    TorchScript traces no masks.
    """
    for node in _calls(graph):
        if MASK.search(str(node.target._schema)):
            *others, mask = node.args
            node.target, node.args = _with_mask(node.target, tuple(mask)), tuple(others)


@cache
def _with_mask(operation: torch._ops.OpOverload, mask: tuple[bool, ...]) -> torch._ops.OpOverload:
    """The operation as one of our own, without its last argument, the mask."""
    schema = operation._schema
    name = f"{schema.name.split('::')[1]}_{''.join(str(int(each)) for each in mask)}"
    _library.define(MASK.sub(")", str(schema)).replace(schema.name, name, 1))
    _library.impl(name, lambda *args: operation(*args, list(mask)), "CompositeExplicitAutograd")
    return getattr(torch.ops.ocp_dc, name).default


def _calls(graph: fx.Graph) -> Iterator[fx.Node]:
    """The calls of PyTorch's operations."""
    yield from (node for node in list(graph.nodes) if isinstance(node.target, torch._ops.OpOverload))


def _refuse_random_numbers(graph: fx.Graph) -> None:
    for node in _calls(graph):
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            raise InputError(f"it draws random numbers ({node.target})")


def _without_mutation(graph: fx.Graph) -> None:
    """In-place operations, which PyTorch's derivatives have, become those that return a new tensor."""
    for node in _calls(graph):
        if not node.target._schema.is_mutable:
            continue
        changed = node.args[0]
        name, overload = node.target._schema.name, node.target._schema.overload_name or "default"
        if _is_view(changed) or any(_is_view(user) for user in changed.users) or changed.op != "call_function":
            raise InputError(f"it changes a tensor in place that may have views ({name})")
        node.target = getattr(getattr(_aten, name.removeprefix("aten::").removesuffix("_")), overload)
        changed.replace_all_uses_with(node, delete_user_cb=lambda user, node=node: user > node)


def _is_view(node: fx.Node) -> bool:
    """Whether it shares the memory of its first argument."""
    if node.target is operator.getitem:
        return _is_view(node.args[0])
    if not isinstance(node.target, torch._ops.OpOverload) or not node.args:
        return False
    schema = node.target._schema
    return not schema.is_mutable and any(argument.alias_info is not None for argument in schema.arguments)


def _bind(module: fx.GraphModule, living: dict[str, Tensor]) -> None:
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for placeholder, (name, tensor) in zip(placeholders, living.items(), strict=False):
        module.register_buffer(name, tensor)
        with module.graph.inserting_before(placeholder):
            constant = module.graph.get_attr(name)
        constant.meta = placeholder.meta
        placeholder.replace_all_uses_with(constant)
        module.graph.erase_node(placeholder)


def _fold_constants(module: fx.GraphModule, living: set[str]) -> None:
    """Of living tensors, only views are constant."""
    values: dict[fx.Node, object] = {}
    alive: set[fx.Node] = set()
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            values[node] = getattr(module, node.target)
            if node.target in living:
                alive.add(node)
        elif node.op == "call_function":
            inputs = node.all_input_nodes
            if getattr(node.target, "overloadpacket", None) in FACTORIES and inputs[0] not in values:
                values[node] = node.target(_alike(node.args[0].meta["val"]), *node.args[1:], **node.kwargs)
            elif all(each in values for each in inputs) and (_is_view(node) or not alive.intersection(inputs)):
                values[node] = node.target(*_evaluated(node.args, values), **_evaluated(node.kwargs, values))
                if alive.intersection(inputs):
                    alive.add(node)
    _put_first(module, {node: value for node, value in values.items() if isinstance(value, Tensor)})


def _alike(example: Tensor) -> Tensor:
    return torch.empty_strided(example.shape, example.stride(), dtype=example.dtype, device=example.device)


def _evaluated(arguments, values: dict[fx.Node, object]):
    return fx.node.map_arg(arguments, lambda node: values[node])


def _put_first(module: fx.GraphModule, constants: dict[fx.Node, Tensor]) -> None:
    """Each constant becomes an attribute, equal ones the same, read before anything is computed."""
    attributes: dict[tuple, fx.Node] = {}
    first = next(iter(module.graph.nodes))
    for node, tensor in constants.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if key not in attributes:
            name = f"constant_{len(attributes)}"
            module.register_buffer(name, tensor)
            with module.graph.inserting_before(first):
                attributes[key] = module.graph.get_attr(name)
            attributes[key].meta = {**node.meta, "val": tensor}
        node.replace_all_uses_with(attributes[key])


def _drop_views_of_all(graph: fx.Graph) -> None:
    """A view that is laid out as what it is a view of, such as ``detach`` and two transpositions, is that."""
    for node in _calls(graph):
        source = node
        while _is_view(source) and source.target is not operator.getitem:
            source = source.args[0]
            if _layout(source) == _layout(node):
                node.replace_all_uses_with(source)
                break


def _layout(node: fx.Node) -> tuple | None:
    example = node.meta.get("val")
    return (example.shape, example.stride(), example.dtype) if isinstance(example, Tensor) else None


def _transpose_sums(graph: fx.Graph) -> None:
    """The sum of two transposed matrices is the transposed sum, as a rule of a matrix that is then transposed again."""
    for node in _calls(graph):
        if node.target is not _aten.add.Tensor or node.kwargs:
            continue
        if all(isinstance(term, fx.Node) and term.target is _aten.t.default for term in node.args):
            with graph.inserting_before(node):
                total = graph.call_function(_aten.add.Tensor, tuple(term.args[0] for term in node.args))
                total.meta = node.args[0].args[0].meta
            node.target, node.args = _aten.t.default, (total,)


def _fuse_sums(graph: fx.Graph) -> None:
    """A sum with a product is one operation; the product, if nothing else needs it, is never written."""
    for node in _calls(graph):
        if node.target is not _aten.add.Tensor or node.kwargs:
            continue
        for term, product in (node.args, node.args[::-1]):
            if not isinstance(term, fx.Node) or not isinstance(product, fx.Node) or len(product.users) > 1:
                continue
            if product.target in WITH_SUM and _alike_results(node, term, product):
                node.target, node.args = WITH_SUM[product.target], (term, *product.args)
                break


def _alike_results(*nodes: fx.Node) -> bool:
    """Whether they give the same shape and type; of a product by a number, no."""
    examples = [node.meta.get("val") for node in nodes]
    if not all(isinstance(example, Tensor) for example in examples):
        return False
    by_tensor = all(isinstance(argument, fx.Node) for argument in nodes[-1].args)
    return by_tensor and len({(example.shape, example.dtype) for example in examples}) == 1


def _own_outputs(graph: fx.Graph) -> None:
    """No two outputs share memory, with each other or with a constant: who gets them may change them."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    seen: set[fx.Node] = set()
    owned = []
    for node in output.args[0]:
        base = node
        while _is_view(base):
            base = base.args[0]
        if base in seen or base.op != "call_function":
            with graph.inserting_before(output):
                node = graph.call_function(_aten.clone.default, (node,))
        seen.add(base)
        owned.append(node)
    output.args = (owned,)
