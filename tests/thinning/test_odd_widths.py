"""Widths that no network is designed with: thinned networks train on in either memory layout.

A crash in a kernel ends the whole test run, which is what these are for (docs/reliability.md, odd widths).
"""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from potstill.thinning import load, resize_to, save, thin


def dense(stride):
    """A network whose 1x1 convolution with a stride has 8 inputs."""
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    down = nn.Sequential(nn.Conv2d(8, 16, 1, stride=stride, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    model = nn.Sequential(body, down, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    return model.to(memory_format=torch.channels_last)


def narrowed(stride, dead):
    """The same after `dead` of the inputs went, and the recipe."""
    model = dense(stride)
    body, down = model[0], model[1]
    with torch.no_grad():
        for parameter in [body[0].weight, body[1].weight, body[1].bias]:
            parameter[:dead] = 0
    recipe = thin(model, torch.randn(2, 3, 16, 16))
    assert down[0].weight.shape == (16, 8 - dead, 1, 1)
    return model, recipe


def trained(model, layout):
    optimizer = torch.optim.SGD(model.train().parameters(), 0.01)
    for step in range(3):
        x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x.to(memory_format=layout)).square().sum().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dead", [1, 3, 5])
def test_either_layout_trains_alike_on_one_thread(stride, dead):
    model, _ = narrowed(stride, dead)
    other = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    trained(model, torch.channels_last)
    trained(other, torch.contiguous_format)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def again(model):
    """What the weight gradient's kernel saw: whether input and weight were in channels-last layout."""
    seen, layer = [], model[1][0]
    layer.register_forward_hook(lambda module, inputs, _: seen.append((inputs[0].stride(1), module.weight.stride(2))))
    trained(model, torch.channels_last)
    return [inside == 1 or weight != 1 for inside, weight in seen]


def test_every_way_to_a_thinned_network_keeps_off_the_kernel(tmp_path):
    model, recipe = narrowed(2, 3)
    path = save(model, recipe, tmp_path / "thinned.safetensors")
    state = io.BytesIO()
    torch.save(model, state)
    state.seek(0)
    applied, sized = dense(2), resize_to(dense(2), model.state_dict())
    sized.load_state_dict(model.state_dict())
    recipe.apply(applied)
    ways = [model, load(dense(2), path), applied, sized, copy.deepcopy(model), torch.load(state, weights_only=False)]
    placed_anew = copy.deepcopy(model).to(memory_format=torch.channels_last)
    for one in (*ways, placed_anew):
        assert again(one) == [False] * 3


def test_without_gradients_and_where_widths_are_safe_the_layout_stays():
    model, _ = narrowed(2, 3)
    seen = []
    model[1][0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].stride(1)))
    with torch.no_grad():
        model(torch.randn(4, 3, 16, 16).to(memory_format=torch.channels_last))
    assert seen == [1]
    assert not narrowed(1, 3)[0][1][0]._forward_pre_hooks


def test_a_thinned_network_is_scripted():
    model, _ = narrowed(2, 3)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(torch.jit.script(model.eval())(x), model(x))


class Branches(nn.Module):
    """Two branches, concatenated and pooled; channels that are dead are those of the first."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a = nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.b = nn.Sequential(nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.pool(torch.cat([self.a(x), self.b(x)], 1)))


def one_channel_left():
    model = Branches()
    with torch.no_grad():
        for layer in (model.a[0], model.a[1], model.a[3], model.b[0], model.b[1]):
            layer.weight[1:] = 0
            layer.bias[1:] = 0
    return model


@pytest.mark.parametrize("training", [False, True])
def test_single_channels_keep_the_layout_of_their_input(training):
    x, strides = torch.randn(4, 3, 16, 16), []
    for layout in (torch.channels_last, torch.contiguous_format):
        model = one_channel_left().to(memory_format=layout)
        thin(model, x.to(memory_format=layout))
        assert model.head.in_channels == 2
        model.pool.register_forward_hook(
            lambda _, inputs, output: strides.extend((inputs[0].stride(1), output.stride(1)))
        )
        model.train(training)(x.to(memory_format=layout)).sum().backward()
    assert strides == [1, 1, 256, 64]


def test_a_network_with_single_channels_is_thinned_again_scripted_and_exported():
    x = torch.randn(2, 3, 16, 16).to(memory_format=torch.channels_last)
    model = one_channel_left().to(memory_format=torch.channels_last)
    thin(model, x)
    assert thin(model, x).removes_nothing
    hooks = [len(module._forward_hooks) for module in model.modules()]
    assert set(hooks) == {0, 1}
    torch.testing.assert_close(torch.jit.script(model.eval())(x), model(x))
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))


class Mixed(nn.Module):
    """Beside a layer that keeps one channel: indices of maxima, a call by keyword, parameters of several elements."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.slopes = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.PReLU(3)
        self.pool, self.out = nn.MaxPool2d(2, return_indices=True), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        made, _ = self.pool(self.relu(input=self.conv(self.slopes(x))))
        return self.out(made)


def test_other_modules_beside_single_channels_run_on():
    model, x = Mixed(), torch.randn(2, 3, 16, 16).to(memory_format=torch.channels_last)
    with torch.no_grad():
        model.conv.weight[1:] = model.conv.bias[1:] = 0
    before = model(x)
    thin(model, x)
    assert model.conv.out_channels == 1
    torch.testing.assert_close(model(x), before)
