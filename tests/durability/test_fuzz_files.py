"""Damaged files: each reads as what was written, or is refused in one line; the long form is `--mutations 10000`."""

import json
import random
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from potstill.command.migration.distiller_pickle import read_pickled
from potstill.compression import CheckpointError, load_checkpoint, save_checkpoint
from potstill.models import create_model
from potstill.thinning import Recipe, ThinningError, load, save, thin

from .mutate import mutate_bytes, mutate_fields, no_hang, other_value
from .test_kills import assert_same

SHORT = 500
"""Up to so many mutants, those that take longest are fewer."""
CONTENTS = {
    "epoch": 3,
    "minibatch": 1,
    "arch": "mlp",
    "state_dict": {"w": torch.arange(300.0), "b": torch.ones(7, dtype=torch.int64)},
    "scheduler": {"masks": {"w": {"mask": torch.ones(300, dtype=torch.bool)}}, "texts": ["one", "two"]},
    "rows": [{"epoch": 0, "loss": 0.1}],
}


def one_line(error):
    text = str(error)
    assert text and "\n" not in text and "Traceback" not in text, text
    return True


def test_bytes_of_checkpoints(tmp_path, mutations, fuzz_seed):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, CONTENTS)
    raw, refused = path.read_bytes(), 0
    for number in range(mutations):
        path.write_bytes(mutate_bytes(raw, random.Random(f"{fuzz_seed} {number}")))
        with no_hang():
            try:
                found = load_checkpoint(path)
            except CheckpointError as error:
                refused += one_line(error)
                continue
        assert_same({"format": 1, **CONTENTS}, found, f"mutant {number}")
    assert refused > mutations / 2, "most mutants are damaged"


@pytest.mark.parametrize("zipped", [False, True], ids=["torch 1.3", "torch 1.6"])
def test_bytes_of_distillers_checkpoints(tmp_path, mutations, fuzz_seed, zipped):
    path = tmp_path / "a.pt"
    contents = {**CONTENTS, "optimizer_type": torch.optim.SGD, "masks": {"w": None}}
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    raw, refused = path.read_bytes(), 0
    for number in range(mutations // 2):
        path.write_bytes(mutate_bytes(raw, random.Random(f"{fuzz_seed} {number}")))
        with no_hang():
            try:
                read_pickled(path)  # without checksums a wrong value can look right
            except CheckpointError as error:
                refused += one_line(error)
    assert refused > mutations / 10


@pytest.fixture(scope="module")
def thinned(tmp_path_factory):
    """A dense network, a recipe for it, and the thinned one on disk."""
    dense = create_model("simplenet_cifar")
    dense.eval()
    with torch.no_grad():
        for name in ("conv1", "conv2", "fc1"):
            layer = dense.get_submodule(name)
            layer.weight[1:3] = 0
            layer.bias[1:3] = 0
    example = torch.randn(2, 3, 32, 32)
    small = create_model("simplenet_cifar").eval()
    small.load_state_dict(dense.state_dict())
    recipe = thin(small, example)
    assert not recipe.removes_nothing
    path = save(small, recipe, tmp_path_factory.mktemp("thinned") / "net.safetensors")
    return dense, recipe, path, small(example), example


def shapes(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_recipes(thinned, mutations, fuzz_seed):
    dense, recipe, *_ = thinned
    text, before = recipe.to_json(), shapes(dense)
    for number in range(mutations):
        chance = random.Random(f"{fuzz_seed} {number}")
        if number % 2:
            mutant = mutate_bytes(text.encode(), chance).decode("utf-8", "replace")
        else:
            mutant = json.dumps(mutate_fields(json.loads(text), chance)[0], default=str)
        model = create_model("simplenet_cifar")
        with no_hang():
            try:
                read = Recipe.from_json(mutant)
            except ThinningError as error:
                one_line(error)
                continue
            try:
                read.apply(model)
            except ThinningError as error:
                one_line(error)
                assert shapes(model) == before, f"mutant {number} changed something"
            assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_thinned_networks_on_disk(thinned, mutations, fuzz_seed, tmp_path):
    _, _, path, expected, example = thinned
    files = [path, path.with_suffix(".json"), path.with_name("net.probe.safetensors")]
    copies = [tmp_path / file.name for file in files]
    wrong = 0
    for number in range(mutations if mutations > SHORT else mutations // 5):
        chance = random.Random(f"{fuzz_seed} {number}")
        victim = chance.randrange(3)
        for i, (file, copy) in enumerate(zip(files, copies, strict=True)):
            raw = file.read_bytes()
            copy.write_bytes(mutate_bytes(raw, chance) if i == victim else raw)
        model = create_model("simplenet_cifar").eval()
        with no_hang():
            try:
                load(model, copies[0])
            except ThinningError as error:
                one_line(error)
                continue
        difference = (model(example) - expected).abs().max() / expected.abs().max()
        wrong += not difference < 1e-2  # the probe is one input: a flipped low bit passes
    assert wrong == 0
    assert load_file(path).keys()


def sparse():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5)).eval()


def test_packed_networks(tmp_path, mutations, fuzz_seed):
    """Without the digest, which a stranger can write too."""
    model = sparse()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight *= torch.rand(layer.weight.shape) < 0.1
    path = save(model, thin(model, torch.ones(2, 32)), tmp_path / "net").with_name("net.packed.safetensors")
    facts = json.loads((tmp_path / "net.json").read_text())
    (tmp_path / "net.json").write_text(json.dumps({k: v for k, v in facts.items() if k != "packed_sha256"}))
    raw, tensors, refused = path.read_bytes(), load_file(path), 0
    count = mutations if mutations > SHORT else mutations // 2
    for number in range(count):
        chance = random.Random(f"{fuzz_seed} packed {number}")
        path.write_bytes(mutate_bytes(raw, chance))
        if number % 2:
            name = chance.choice(sorted(tensors))
            other = other_value(tensors[name], chance)
            changed = {**tensors, name: other.contiguous() if isinstance(other, torch.Tensor) else torch.tensor(0)}
            changed.pop(chance.choice([*sorted(tensors), "", "", ""]), None)
            with suppress(KeyError):  # an older safetensors writes no complex numbers
                save_file(changed, path)
        dense = sparse()
        with no_hang():
            try:
                load(dense, path)
            except ThinningError as error:
                refused += one_line(error)
                assert all(torch.equal(a, b) for a, b in zip(dense.parameters(), sparse().parameters(), strict=True))
        assert dense(torch.ones(1, 32)).shape == (1, 5)  # of whatever weights: nothing else says what they were
    assert 0 < refused < count
