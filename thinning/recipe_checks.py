"""Whether a recipe is of a model: checked before anything is made of it, for recipes come from files."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim import Optimizer

from .attributes import epsilon_problem, kept_as, size_problem
from .changes import AttributeChange, Magnitude, Removal, TensorChange
from .errors import ThinningError
from .module_sizes import new_size
from .new_biases import layer_without, outputs_of, weight_of


def must_fit(recipe: Removal, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Check a recipe against the model, before anything is made of it.

    Raises:
        ThinningError: a name, a shape or an attribute is another than the recipe says, or no size at all.
    """
    for change in recipe.tensors:
        if change.name not in tensors:
            raise ThinningError(f"the recipe is for another model: it has no '{change.name}'")
        if tuple(tensors[change.name].shape) != change.shape:
            found = list(tensors[change.name].shape)
            raise ThinningError(f"the recipe expects '{change.name}' of shape {list(change.shape)}, found {found}")
    shapes = {change.name: change.new_shape for change in recipe.tensors}
    for bias in recipe.biases:
        layer, weight = layer_without(model, bias), weight_of(bias)
        shapes[bias] = (outputs_of(layer, shapes.get(weight, tuple(layer.weight.shape))),)
        if bias not in {fold.name for fold in recipe.folds}:
            raise ThinningError(f"the recipe adds '{bias}' for no constant")
    for fold in recipe.folds:
        shape = shapes.get(fold.name, tuple(tensors[fold.name].shape) if fold.name in tensors else None)
        if shape != tuple(fold.amounts.shape):
            raise ThinningError(f"the recipe adds {len(fold.amounts)} constants to '{fold.name}' of shape {shape}")
    _check_scales(recipe, model, shapes, tensors)
    if recipe.attributes and not recipe.tensors:
        raise ThinningError("the recipe changes sizes that modules keep, but no tensor: nothing explains them")
    for attribute in recipe.attributes:
        _check_attribute(attribute, model)


def _check_scales(
    recipe: Removal, model: nn.Module, shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]
) -> None:
    for rescaling in recipe.rescalings:
        if rescaling.name not in tensors:
            raise ThinningError(f"the recipe is for another model: it has no '{rescaling.name}'")
        problem = epsilon_problem(_module(model, rescaling.module), rescaling.attribute, rescaling.new)
        if problem:
            raise ThinningError(f"'{rescaling.module}.{rescaling.attribute}' {problem}")
    changes = {change.name: change for change in recipe.tensors}
    for magnitude in recipe.magnitudes:
        _check_magnitude(magnitude, changes.get(magnitude.directions), shapes, tensors)


def _check_magnitude(
    magnitude: Magnitude,
    change: TensorChange | None,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, Tensor],
) -> None:
    if change is None or magnitude.name not in tensors or not 0 <= magnitude.dim < len(change.shape):
        raise ThinningError(f"the recipe scales '{magnitude.name}' by a norm that it does not change")
    shape = shapes.get(magnitude.name, tuple(tensors[magnitude.name].shape))
    expected = tuple(size if dim == magnitude.dim else 1 for dim, size in enumerate(change.new_shape))
    if shape != expected:
        raise ThinningError(f"the recipe scales '{magnitude.name}' of shape {list(shape)} by {list(expected)} norms")


def _check_attribute(attribute: AttributeChange, model: nn.Module) -> None:
    module = _module(model, attribute.module)
    found = kept_as(module, attribute.name)
    problem = size_problem(module, attribute.name, attribute.new, attribute.index)
    if problem:
        raise ThinningError(f"'{attribute.module}.{attribute.name}' {problem}")
    value = found if attribute.index is None else found[attribute.index]
    if new_size(attribute.old, value) != attribute.old:
        expected = f"expects '{attribute.module}.{attribute.name}' of {attribute.old}, found {value}"
        raise ThinningError(f"the recipe {expected}")


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise ThinningError(f"the recipe is for another model: {error}") from error


def held_parameters(optimizer: Optimizer | None, model: nn.Module) -> list[int]:
    """Return the optimizer's parameters by identity; those of another copy of the model are an error."""
    if optimizer is None:
        return []
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    own = {id(parameter): name for name, parameter in model.named_parameters()}
    strangers = [i for i in held if i not in own]
    missing = [name for i, name in own.items() if i not in set(held) and model.get_parameter(name).requires_grad]
    if strangers and missing:
        raise ThinningError(
            f"the optimizer holds {len(strangers)} tensors that are not the model's, not '{missing[0]}': it was made"
            " for another copy of the model, and what is thinned would stop learning"
        )
    return held
