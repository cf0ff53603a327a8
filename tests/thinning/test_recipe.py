"""Recipes and stored models: printed, saved, read back, refused when damaged."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from potstill.thinning import Recipe, ThinningError, load, read_about, resize_to, save, thin

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(144, 2)
    )


def masked() -> nn.Sequential:
    torch.manual_seed(0)
    model = net().eval()
    with torch.no_grad():
        model[0].weight[[1, 5]], model[0].bias[[1, 5]] = 0, 0
        model[1].weight[[1, 5]], model[1].bias[[1, 5]] = 0, 0
    return model


def test_round_trip_and_text() -> None:
    recipe = thin(masked(), X)
    again = Recipe.from_json(recipe.to_json())
    assert again.to_json() == recipe.to_json()
    kept = {change.name: {dim: kept.tolist() for dim, kept in change.keep.items()} for change in again.tensors}
    assert kept["0.weight"] == {0: [0, 2, 3, 4, 6, 7]}
    assert kept["3.weight"] == {1: [0, 2, 3, 4, 6, 7]}
    text = str(again)
    assert "0.weight 8x3x3x3 6x3x3x3" in [" ".join(line.split()) for line in text.splitlines()]
    assert "3 channels of 0.weight[1]: aten.convolution in 0 (Conv2d): reads an input of fixed size" in text


def test_apply_to_another_copy() -> None:
    model, other = masked(), masked()
    recipe = thin(model, X)
    recipe.apply(other)
    assert torch.equal(model(X), other(X))
    assert (other[0].out_channels, other[1].num_features, other[3].in_channels) == (6, 6, 6)
    with pytest.raises(ThinningError, match=r"expects '0.weight' of shape \[8, 3, 3, 3\], found \[6, 3, 3, 3\]"):
        recipe.apply(other)
    with pytest.raises(ThinningError, match="the recipe is for another model: it has no '0.weight'"):
        recipe.apply(nn.Linear(2, 2))


def test_nothing_is_dead() -> None:
    model = net()
    recipe = thin(model, X)
    assert recipe.removes_nothing
    assert "no channel is dead, nothing is removed" in str(recipe)
    assert model[0].weight.shape == (8, 3, 3, 3)


def test_all_dead_keeps_one() -> None:
    model = masked()
    with torch.no_grad():
        for parameter in (*model[0].parameters(), *model[1].parameters()):
            parameter.zero_()
    before = model(X)
    recipe = thin(model, X)
    assert model[0].weight.shape == (1, 3, 3, 3)
    assert torch.allclose(model(X), before, rtol=1e-5, atol=0)
    assert "all channels of 0.weight[0] are dead; one stays, as zeros" in str(recipe)


def test_rounding() -> None:
    model = masked()
    recipe = thin(model, X, round_to=4)
    assert recipe.removes_nothing
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias, model[1].weight, model[1].bias):
            tensor[[2, 3, 4]] = 0
    recipe = thin(model, X, round_to=4)
    assert model[0].out_channels == 4
    assert "1 dead channels stay, so that counts are multiples of 4" in str(recipe)


BROKEN = {
    "format": (lambda d: d.update(format="other"), "this reads format 'potstill-recipe' versions 1 to 4"),
    "missing": (lambda d: d.pop("tensors"), r"recipe.tensors: is missing"),
    "range": (
        lambda d: d["tensors"][0]["keep"].update({"0": [[0, 9]]}),
        r"tensors\[0\].keep.0\[0\]: expected an ascending range",
    ),
    "dim": (lambda d: d["tensors"][0]["keep"].update({"7": [[0, 1]]}), "'7' is no dimension of shape"),
    "type": (lambda d: d["tensors"][0].update(shape=["8"]), r"recipe.tensors\[0\].shape\[0\]: expected a whole number"),
    "twice": (lambda d: d["tensors"].append(d["tensors"][0]), "a name occurs twice"),
    "dunder": (
        lambda d: d["attributes"].append({"module": "", "name": "__class__", "index": None, "old": 1, "new": 2}),
        "the name of an attribute",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_damaged_recipe_is_refused(kind: str) -> None:
    damage, message = BROKEN[kind]
    data = json.loads(thin(masked(), X).to_json())
    damage(data)
    with pytest.raises(ThinningError, match=message):
        Recipe.from_json(json.dumps(data))


def test_not_json() -> None:
    with pytest.raises(ThinningError, match="recipe: not JSON"):
        Recipe.from_json("{")


def test_attribute_that_is_no_size() -> None:
    data = json.loads(thin(masked(), X).to_json())
    data["attributes"].append({"module": "0", "name": "forward", "index": None, "old": 1, "new": 2})
    with pytest.raises(ThinningError, match="'0.forward' is no integer"):
        Recipe.from_json(json.dumps(data)).apply(masked())


def test_store(tmp_path: Path) -> None:
    model = masked()
    path = save(model, thin(model, X), tmp_path / "small.safetensors")
    assert {file.name for file in tmp_path.iterdir()} == {
        f"small{s}" for s in (".safetensors", ".json", ".py", ".probe.safetensors")
    }
    assert torch.equal(resize_to(net(), model.state_dict())[0].weight.new_ones(1), torch.ones(1))
    spec = importlib.util.spec_from_file_location("small", tmp_path / "small.py")
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    assert "potstill" not in (tmp_path / "small.py").read_text().lower()
    for loaded in (load(net(), path).eval(), alone.load(net())):
        assert torch.equal(loaded(X), model(X))
        for tensor in loaded.state_dict().values():  # as views of the file they would lie anywhere, and sums change
            assert tensor.data_ptr() % 64 == 0


class Lengths(nn.Module):
    """Takes lengths, of which one has to be that of the sequence; holds a sparse matrix."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)
        self.register_buffer("mix", torch.eye(6).roll(1, 0).to_sparse())

    def forward(self, x, lengths):
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        x = torch.stack([torch.sparse.mm(self.mix, one) for one in x])
        return self.b(self.a(x).relu() * mask[..., None])


def test_lengths_and_sparse_buffers_are_stored(tmp_path: Path) -> None:
    model, inputs = Lengths(), (torch.randn(2, 6, 4), torch.tensor([6, 3]))
    with torch.no_grad():
        model.a.weight[:3], model.a.bias[:3] = 0, 0
    again = load(Lengths(), save(model, thin(model, inputs), tmp_path / "small"))
    assert again.a.out_features == 5
    assert again.mix.is_sparse
    assert torch.equal(again(*inputs), model(*inputs))


class Heads(nn.Module):
    """Attention whose number of heads is an attribute of its own, behind a convolution with a constant channel."""

    def __init__(self):
        super().__init__()
        self.heads, self.width = 4, 3
        self.stem, self.norm = nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8)
        self.qkv, self.out = nn.Linear(8, 36), nn.Linear(12, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).transpose(1, 2)
        q, k, v = self.qkv(x).reshape(len(x), -1, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(len(x), -1, self.heads * self.width))

    @torch.no_grad()
    def kill(self, head: int, channel: int, constant: float) -> Heads:
        """Make a head zero, and a channel the same everywhere."""
        self.out.weight.view(5, self.heads, 3)[:, head] = 0
        self.norm.weight[channel], self.norm.bias[channel] = 0, constant
        return self


def test_recipes_of_one_network_compose(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6)
    model = Heads().eval().kill(1, 2, 0.5)
    dense = copy.deepcopy(model)
    first = thin(model, x)
    assert (model.heads, model.qkv.in_features) == (3, 7)
    second = thin(model.kill(2, 0, -0.25), x)
    assert (model.heads, model.qkv.in_features, model.norm.num_features) == (2, 6, 6)
    both = first.then(second)
    assert both.parameters == (first.parameters[0], sum(p.numel() for p in model.parameters()))
    assert {c.name: c.shape for c in both.tensors} == {c.name: dense.state_dict()[c.name].shape for c in both.tensors}
    assert [(a.name, a.old, a.new) for a in both.attributes] == [("heads", 4, 2)]
    kept = {c.name: c.keep for c in both.tensors}
    assert kept["norm.weight"][0].tolist() == [1, 3, 4, 5, 6, 7]  # channel 2, then number 0 of those that were left
    assert kept["out.weight"][1].tolist() == [0, 1, 2, 6, 7, 8]
    twice, at_once = copy.deepcopy(dense), copy.deepcopy(dense)
    first.apply(twice)
    second.apply(twice)
    Recipe.from_json(both.to_json()).apply(at_once)
    for name, tensor in twice.state_dict().items():
        torch.testing.assert_close(at_once.state_dict()[name], tensor)
    for number, recipe in enumerate((both, second)):  # the last one alone stands for all
        path = save(model, recipe, tmp_path / f"small{number}")
        assert torch.equal(load(Heads(), path).eval()(x), model(x))
    with pytest.raises(ThinningError, match=r"recipes that do not follow each other: the first leaves '.*' of \["):
        first.then(first)


class Stream(nn.Module):
    """A residual stream of 12 channels under an RMSNorm."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.up = nn.Linear(6, 12, bias=False), nn.RMSNorm(12, eps=1e-6), nn.Linear(12, 10)
        self.down, self.out = nn.Linear(10, 12, bias=False), nn.Linear(12, 3)

    def forward(self, x):
        x = self.embed(x)
        return self.out(x + self.down(self.up(self.norm(x)).relu()))

    @torch.no_grad()
    def kill(self, *channels: int) -> Stream:
        """Make channels of the stream zero."""
        self.embed.weight[list(channels)], self.down.weight[list(channels)] = 0, 0
        return self


def test_rescaled_norms_compose(tmp_path: Path) -> None:
    """From 12 to 10 to 9 channels: the weight times sqrt(12 / 9), the epsilon times 12 / 9."""
    torch.manual_seed(0)
    x, model = torch.randn(4, 6), Stream().eval()
    first = thin(model.kill(1, 2), x)
    second = thin(model.kill(0), x)
    (norm,) = first.then(second).rescalings
    assert (norm.factor, norm.old, norm.new) == (pytest.approx((12 / 9) ** 0.5), 1e-6, pytest.approx(1e-6 * 12 / 9))
    assert torch.equal(load(Stream(), save(model, second, tmp_path / "small")).eval()(x), model(x))


def test_a_stored_model_that_computes_something_else(tmp_path: Path) -> None:
    model = masked()
    path = save(model, thin(model, X), tmp_path / "small")
    weights = load_file(path)
    weights["5.bias"] += 1
    save_file(weights, path)
    with pytest.raises(ThinningError, match="small.safetensors is damaged, or of another network"):
        load(net(), path)
    facts = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({key: value for key, value in facts.items() if key != "sha256"}))
    with pytest.raises(ThinningError, match="does not compute what it computed when stored"):
        load(net(), path)
    with pytest.raises(ThinningError, match="is of another model: missing"):
        load(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(3, 3)), path)
    path.write_bytes(b"rubbish")
    with pytest.raises(ThinningError, match="cannot read"):
        load(net(), path)


def test_a_depthwise_convolution_with_one_channel_left_is_stored(tmp_path: Path) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))

    model, x = network(), torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        model[0].weight[1:], model[0].bias[1:], model[1].bias[1:] = 0, 0, 0
    recipe = thin(model, x)
    assert (model[1].in_channels, model[1].groups) == (1, 1)
    save(model, recipe, tmp_path / "small")
    assert torch.equal(load(network(), tmp_path / "small")(x), model.eval()(x))


def test_resize_refuses_another_model() -> None:
    state = masked().state_dict()
    with pytest.raises(ThinningError, match="the state dict is of another model: missing"):
        resize_to(nn.Linear(2, 2), state)
    grown = copy.deepcopy(state) | {"0.bias": torch.zeros(9)}
    with pytest.raises(ThinningError, match=r"'0.bias' is \[9\] in the state dict, \[8\] in the model"):
        resize_to(net(), grown)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_stored_files_have_the_mode_that_the_umask_allows(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        model = masked()
        save(model, thin(model, X), tmp_path / "thinned.safetensors")
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(
        [f"thinned{suffix}" for suffix in (".safetensors", ".probe.safetensors", ".json", ".py")], mode
    )


class Nameless(nn.Module):
    """A norm that keeps no size."""

    def __init__(self) -> None:
        super().__init__()
        for name, tensor in nn.BatchNorm2d(8).named_parameters():
            self.register_parameter(name, tensor)
        for name, tensor in nn.BatchNorm2d(8).named_buffers():
            self.register_buffer(name, tensor)


OTHERS = {
    "missing": lambda: nn.Sequential(*net(), nn.Linear(3, 3)),
    "unexpected": lambda: nn.Sequential(*net()[:-1]),
    "narrower": lambda: nn.Sequential(nn.Conv2d(3, 3, 3), *net()[1:]),
    "flat": lambda: nn.Sequential(nn.Linear(3, 8), *net()[1:]),
    "nameless": lambda: nn.Sequential(net()[0], Nameless(), *net()[2:]),
    "another function": lambda: nn.Sequential(*net()[:2], nn.Tanh(), *net()[3:]),
    "does not run": lambda: nn.Sequential(*net()[:-2], nn.Identity(), net()[-1]),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_both_loaders_say_the_same_of_another_architecture(tmp_path, kind):
    model = net().eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.startswith(("0.", "1.")):
                tensor[2:5] = 0
    path = save(model, thin(model, torch.randn(2, 3, 8, 8)), tmp_path / "small.safetensors")
    assert model[0].out_channels == 5
    spec = importlib.util.spec_from_file_location("small", path.with_suffix(".py"))
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    said = []
    for loader in (lambda dense: load(dense, path), alone.load):
        with pytest.raises((ThinningError, RuntimeError)) as raised:
            loader(OTHERS[kind]().train())
        said.append(str(raised.value))
    number = re.compile(r"difference [\d.e+-]+$")
    assert number.sub("difference", said[0]) == number.sub("difference", said[1])
    for loader in (lambda dense: load(dense, path), alone.load):
        assert not any(module.training for module in loader(net().train()).modules())


def test_what_is_known_of_a_model_lies_beside_it(tmp_path):
    model = net().eval()
    known = {"classes": ["ant", "b\u00fcffel\x1b[31m"], "mean": [0.5, 0.25, 0.1]}
    path = save(model, thin(model, torch.randn(2, 3, 8, 8)), tmp_path / "small", about=known)
    spec = importlib.util.spec_from_file_location("small", path.with_suffix(".py"))
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    assert read_about(path) == alone.about() == known
    facts = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(facts | {"about": [1]}))
    with pytest.raises(ThinningError, match="'about' must be a mapping"):
        load(net(), path)
    del facts["about"]  # of a version that kept nothing
    path.with_suffix(".json").write_text(json.dumps(facts))
    assert read_about(path) == {} and load(net(), path)
