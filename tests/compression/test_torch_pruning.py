"""Networks that torch.nn.utils.prune and torch.ao.pruning pruned become plain; they stay as sparse, and are thinned."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import compress_classifier
from potstill.compression import adopt_torch_pruning, load_checkpoint
from potstill.compression.torch_pruning import plain_state_dict
from potstill.models import create_model
from potstill.thinning import load, save

INPUTS = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 5),
    )  # fmt: skip


def pruned():
    """By three of its methods, two of them on one weight."""
    model = net()
    prune.ln_structured(model[0], "weight", 0.5, 1, dim=0)
    prune.random_unstructured(model[2], "weight", 0.2)
    prune.l1_unstructured(model[2], "weight", 0.3)
    prune.l1_unstructured(model[6], "bias", 2)
    return model


def train(model, scheduler):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(3):
        scheduler.on_minibatch_begin(0, step, 3, optimizer)
        optimizer.zero_grad()
        model(INPUTS).square().mean().backward()
        scheduler.before_parameter_optimization(0, step, 3, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(0, step, 3, optimizer)


def test_weights_are_plain_and_masks_are_kept(tmp_path):
    model, reference = pruned(), pruned()
    objects = {id(parameter) for parameter in model.parameters()}
    masks = {name.removesuffix("_mask"): mask.clone() for name, mask in model.named_buffers()}
    expected = model(INPUTS)
    scheduler = adopt_torch_pruning(model, INPUTS)
    assert model.state_dict().keys() == net().state_dict().keys()
    assert {id(parameter) for parameter in model.parameters()} == objects
    assert torch.equal(model(INPUTS), expected) and torch.equal(reference(INPUTS), expected)
    assert masks.keys() == {"0.weight", "2.weight", "6.bias"}
    for name, mask in masks.items():
        assert torch.equal(scheduler.masks[name].mask, mask), name
    train(model, scheduler)
    for name, mask in masks.items():
        assert not model.get_parameter(name)[mask == 0].any()


def test_it_goes_through_to_a_thinned_file(tmp_path):
    model = pruned().eval()
    scheduler = adopt_torch_pruning(model, INPUTS)
    train(model, scheduler)
    expected = model(INPUTS)
    thin = load(net(), save(model, scheduler.thin(), tmp_path / "thin.safetensors"))
    assert thin[0].out_channels == 4 and torch.allclose(thin(INPUTS), expected, atol=1e-5)


def test_masks_of_torch_ao():
    from torch.ao.pruning import WeightNormSparsifier

    model = net()
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1), zeros_per_block=1)
    sparsifier.prepare(model, [{"tensor_fqn": "6.weight"}])
    sparsifier.step()
    parametrizations.weight_norm(model[2])
    expected = model(INPUTS)
    scheduler = adopt_torch_pruning(model, INPUTS)
    assert torch.equal(model(INPUTS), expected)
    mask = scheduler.masks["6.weight"].mask
    assert 0 < (mask == 0).sum() < mask.numel() and not model[6].weight[mask == 0].any()
    assert "2.parametrizations.weight.original0" in scheduler.masks  # what is no mask stays


def test_nothing_to_adopt():
    with pytest.raises(ValueError, match="no parameter has a mask of torch"):
        adopt_torch_pruning(net())


def test_state_dicts_of_pruned_networks(tmp_path, capsys):
    model = create_model("resnet20_cifar")
    prune.l1_unstructured(model.layer3[0].conv1, "weight", 0.6)
    prune.ln_structured(model.conv1, "weight", 0.25, 2, dim=0)
    masks = {name.removesuffix("_mask"): mask for name, mask in model.named_buffers() if name.endswith("_mask")}
    torch.save({"state_dict": model.state_dict(), "epoch": 7}, tmp_path / "pruned.pt")
    command = ["--import-distiller", str(tmp_path / "pruned.pt"), "-a", "resnet20_cifar", "-o", str(tmp_path)]
    assert compress_classifier.main(command) == 0
    assert "after epoch 7, 2 masks" in capsys.readouterr().out
    imported = load_checkpoint(tmp_path / "pruned_imported.pt")
    found = imported["scheduler"]["masks"]["masks"]
    assert found.keys() == masks.keys()
    plain = create_model("resnet20_cifar").eval()
    plain.load_state_dict(imported["state_dict"])
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(plain(images), model.eval()(images), atol=1e-6)


@pytest.mark.parametrize("state", [{"a_orig": torch.ones(2)}, {"a_mask": torch.ones(2)}, {"a": torch.ones(2)}, {}])
def test_other_state_dicts_stay(state):
    assert plain_state_dict(state) == (state, {})


def test_a_mask_that_does_not_fit():
    with pytest.raises(ValueError, match="a_mask is no mask of a_orig"):
        plain_state_dict({"a_orig": torch.ones(2), "a_mask": torch.ones(3)})
