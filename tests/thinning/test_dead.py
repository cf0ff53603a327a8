"""Which channels are dead: constants, consumers that ignore, norms that average; and what happens on failure."""

from __future__ import annotations

import copy
import inspect
import re

import pytest
import torch
from torch import nn

from potstill.thinning import ThinningError, thin
from potstill.thinning.tracing.rules import elementwise

X = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(5))


def sensitive(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


def exact(model: nn.Module, **options) -> tuple[nn.Module, object]:
    before = copy.deepcopy(model)(X)
    recipe = thin(model, X, **options)
    assert (model(X) - before).abs().max() <= 1e-5 * before.abs().max()
    return model, recipe


def distiller(padding: int, bias: bool = True, norm: bool = False) -> nn.Sequential:
    """Filters masked without their BatchNorm, which then puts out a constant."""
    tail = [nn.BatchNorm2d(5)] if norm else [nn.ReLU()]
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3, padding=padding, bias=bias), *tail
    )
    sensitive(model)
    with torch.no_grad():
        model[0].weight[:3] = 0
        model[1].bias += 3
    return model


def test_constants_fold_into_the_bias() -> None:
    model, recipe = exact(distiller(0))
    assert model[0].out_channels == 5
    assert [fold.name for fold in recipe.folds] == ["3.bias"]


def test_constants_fold_into_the_running_mean() -> None:
    model, recipe = exact(distiller(0, bias=False, norm=True))
    assert model[0].out_channels == 5
    assert [fold.name for fold in recipe.folds] == ["4.running_mean"]


def test_constants_that_meet_padding_stay() -> None:
    model, recipe = exact(distiller(1))
    assert model[0].out_channels == 8
    assert [(kept.channels, kept.use) for kept in recipe.refused] == [(3, "0.weight[0]")]
    assert "a constant other than 0 meets the zero padding of 3" in recipe.refused[0].reason
    assert re.search(r"would change the output by \d\.\de-\d\d of its maximum", recipe.refused[0].reason)


def test_no_bias_to_take_the_constant() -> None:
    model, recipe = exact(distiller(0, bias=False))
    assert model[0].out_channels == 8
    assert "has no bias to take it" in recipe.refused[0].reason


def test_consumers_that_ignore() -> None:
    model = sensitive(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)))
    with torch.no_grad():
        model[2].weight[:, [0, 7]] = 0
        model[4].weight[:, [2]] = 0
    model, _ = exact(model)
    assert (model[0].out_channels, model[2].out_channels) == (6, 5)


def test_ignored_all_the_way_up() -> None:
    model = sensitive(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)))
    with torch.no_grad():
        model[4].weight[:, :3] = 0
        model[2].weight[3:, :4] = 0
    model, _ = exact(model)
    assert (model[0].out_channels, model[2].out_channels) == (4, 3)


def test_a_norm_that_averages_is_refused_unless_asked_for() -> None:
    def make() -> nn.Module:
        model = sensitive(nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8), nn.Conv2d(8, 2, 1)))
        with torch.no_grad():
            for tensor in (model[0].weight, model[0].bias, model[1].weight, model[1].bias):
                tensor[:2] = 0
        return model

    assert thin(make(), X).removes_nothing
    model = make()
    recipe = thin(model, X, allow_inexact=True)
    assert model[0].out_channels == model[1].num_channels == 6
    assert recipe.max_relative_difference > 1e-3


def test_a_rule_that_is_wrong_is_found_out(monkeypatch) -> None:
    model = sensitive(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 2, 1)))
    with torch.no_grad():
        model[0].weight[:2], model[0].bias[:2] = 0, 0
    state = copy.deepcopy(model.state_dict())
    monkeypatch.setattr(elementwise, "value_of", lambda call, group: group[0].value)
    (kept,) = [kept for kept in thin(model, X).frozen if kept.use == "0.weight[0]"]
    assert "the outputs depend on the number or order of these channels" in kept.reason
    monkeypatch.setitem(inspect.unwrap(thin).__globals__, "without_harmful", lambda *_: None)
    with pytest.raises(ThinningError, match=r"another function: .* the first tensor that differs is the output of '2'"):
        thin(model, X)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert model[0].out_channels == 8


def test_sigmoid_of_zero_is_folded() -> None:
    model = sensitive(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 2, 1)))
    with torch.no_grad():
        model[0].weight[:2], model[0].bias[:2] = 0, 0
    model, recipe = exact(model)
    assert model[0].out_channels == 6
    assert [fold.name for fold in recipe.folds] == ["2.bias"]


def test_slices_by_a_number_in_the_code() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(4, 6, 1), nn.Conv2d(14, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            return self.c(torch.cat((x, self.b(x[:, 2:6])), 1))

    model = sensitive(Net())
    with torch.no_grad():
        model.a.weight[:3], model.a.bias[:3] = 0, 0
        model.b.weight[:2], model.b.bias[:2] = 0, 0
    model, recipe = exact(model)
    assert (model.a.out_channels, model.b.out_channels) == (8, 4)
    assert any("aten.slice in the model (Net): a size is fixed in the model's code" in k.reason for k in recipe.frozen)


def test_channels_last_stays() -> None:
    model = distiller(0).to(memory_format=torch.channels_last)
    thin(model, X.to(memory_format=torch.channels_last))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_half_precision() -> None:
    model = distiller(0).bfloat16()
    before = copy.deepcopy(model)(X.bfloat16())
    recipe = thin(model, X.bfloat16())
    assert model[0].out_channels == 5
    assert (model(X.bfloat16()) - before).abs().max() <= 0.1 * before.abs().max()
    assert recipe.max_relative_difference < 0.1
