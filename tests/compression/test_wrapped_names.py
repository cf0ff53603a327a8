"""A parameter has one name, with or without `module.`: what a wrapped network wrote, a bare one reads, and back."""

import copy

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, dict_config
from potstill.thinning import Recipe, load, resize_to, save, thin

INPUTS = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())
        self.split = 8  # a number of channels that forward reads: an attribute of a recipe
        self.head = nn.Linear(6 * 4 * 4, 5)

    def forward(self, x):
        first = self.features[2](self.features[1](self.features[0](x)))
        first = first.reshape(len(x), self.split, *first.shape[2:])
        return self.head(self.features[4](self.features[3](first)).flatten(1))


def bare():
    torch.manual_seed(0)
    return Net().eval()


def outside():
    return nn.DataParallel(bare())


def inside():
    """As AlexNet and VGG were wrapped; its forward indexes the Sequential itself."""
    net = bare()
    net.features[0] = nn.DataParallel(net.features[0])
    return net


def compiled():
    return torch.compile(bare(), backend="eager")


KIND = pytest.mark.parametrize("other", [outside, inside, compiled])


def pruned(model):
    """Half of the filters of the first convolution masked; named without `module.`."""
    schedule = {
        "pruners": {
            "p": {
                "class": "L1RankedStructureParameterPruner",
                "group_type": "Filters",
                "desired_sparsity": 0.5,
                "weights": ["features.0.weight"],
            }
        },
        "policies": [{"pruner": {"instance_name": "p"}, "epochs": [0]}],
    }
    scheduler = dict_config(model, None, schedule, example_inputs=INPUTS)
    scheduler.on_epoch_begin(0)
    scheduler.on_minibatch_begin(0, 0, 1)
    return scheduler


def outputs(model):
    with torch.no_grad():
        return model.eval()(INPUTS)


@KIND
def test_saved_wrapped_opens_bare_and_the_other_way_round(tmp_path, other):
    for number, (written, read) in enumerate([(other, bare), (bare, other), (other, other)]):
        model = written()
        recipe = pruned(model).thin()
        assert not recipe.removes_nothing
        expected = outputs(model)
        inner = getattr(model, "module", getattr(model, "_orig_mod", model))
        for part, saved in enumerate((model, inner)):
            path = save(saved, recipe, tmp_path / f"{number}{part}.safetensors")
            assert torch.allclose(outputs(load(read(), path)), expected, atol=1e-5)


@KIND
def test_recipes_fit_every_spelling(other):
    wrapped, plain = other(), bare()
    for source, target in ((wrapped, plain), (plain, wrapped)):
        scheduler = pruned(copy.deepcopy(source))
        recipe = Recipe.from_json(scheduler.thin().to_json())
        masked = copy.deepcopy(target)
        other_masks = pruned(masked)
        recipe.apply(masked, other_masks.masks)
        assert torch.allclose(outputs(masked), outputs(scheduler.model), atol=1e-5)
        for entry, parameter in zip(other_masks.masks.values(), masked.parameters(), strict=True):
            assert entry.mask is None or entry.mask.shape == parameter.shape


def test_masks_of_another_spelling_are_thinned_along():
    model = bare()
    scheduler = pruned(model)
    masks = {f"module.{name}": entry.mask for name, entry in scheduler.masks.items() if entry.mask is not None}
    thin(model, INPUTS, masks)
    assert masks["module.features.0.weight"].shape == (4, 3, 3, 3)


@KIND
def test_masks_are_found_by_either_name(other):
    for model in (bare(), other()):
        masks = pruned(model).zeros_mask_dict
        for name in ("features.0.weight", "module.features.0.weight", "features.module.0.weight"):
            assert name in masks and masks[name].mask.sum() == 4 * 27
        assert "features.9.weight" not in masks and len(masks) == len(list(model.parameters()))


def test_a_module_of_ones_own_called_module_is_no_wrapper():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))
            self.module = nn.Linear(2, 2, bias=False)

        def forward(self, x):
            return self.module(x) @ self.weight

    masks = CompressionScheduler(Own()).masks
    masks.set("a", "module.weight", torch.zeros(2, 2))
    assert masks["module.weight"].mask is not None and masks["weight"].mask is None


def test_resize_by_the_state_dict_of_a_wrapped_network():
    model = outside()
    pruned(model).thin()
    resized = resize_to(bare(), model.state_dict())
    assert resized.features[0].out_channels == 4


STATEFUL = {
    "SensitivityPruner": {"sensitivities": {"features.0.weight": 0.5}},
    "SplicingPruner": {"sensitivities": {"features.0.weight": 0.2}, "low_thresh_mult": 0.9, "hi_thresh_mult": 1.1},
    "GradientRankedFilterPruner": {"group_type": "Filters", "desired_sparsity": 0.5, "weights": ["features.0.weight"]},
    "ActivationAPoZRankedFilterPruner": {
        "group_type": "Filters", "desired_sparsity": 0.5, "weights": ["features.0.weight"],
    },
    "AutomatedGradualPruner": {"initial_sparsity": 0.1, "final_sparsity": 0.6, "weights": ["features.3.weight"]},
}  # fmt: skip


def stepped(model, cls, epochs, state=None):
    """A scheduler that trained for some epochs, perhaps from another's state on; and the optimizer's model."""
    schedule = {
        "pruners": {"p": {"class": cls, **STATEFUL[cls]}},
        "policies": [{"pruner": {"instance_name": "p"}, "starting_epoch": 1, "ending_epoch": 5}],
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = dict_config(model, optimizer, schedule, example_inputs=INPUTS)
    if state is not None:
        scheduler.load_state_dict(state)
    for epoch in epochs:
        scheduler.on_epoch_begin(epoch, optimizer)
        model.train()
        scheduler.on_minibatch_begin(epoch, 0, 1, optimizer)
        loss = scheduler.before_backward_pass(epoch, 0, 1, model(INPUTS).square().mean(), optimizer)
        optimizer.zero_grad()
        loss.backward()
        scheduler.before_parameter_optimization(epoch, 0, 1, optimizer)
        optimizer.step()
        scheduler.on_minibatch_end(epoch, 0, 1, optimizer)
        scheduler.on_epoch_end(epoch, optimizer)
    return scheduler


@pytest.mark.parametrize("cls", STATEFUL)
@pytest.mark.parametrize(("first", "second"), [(outside, bare), (bare, outside)])
def test_a_scheduler_goes_on_under_other_names(cls, first, second):
    straight = stepped(second(), cls, range(4))
    half = stepped(first(), cls, range(2))
    model = second()
    for mine, theirs in zip(model.state_dict().values(), half.model.state_dict().values(), strict=True):
        mine.copy_(theirs)
    rest = stepped(model, cls, range(2, 4), half.state_dict())
    for mine, theirs in zip(model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert any(entry.mask is not None and not entry.mask.all() for entry in rest.masks.values())
