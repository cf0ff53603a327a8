"""What only a GPU can show: moves between devices, mixed precision, TF32, bit-identity. Skipped without one.

`pytest --device cuda tests/compression tests/thinning` runs the tests of these folders there too.
"""

import pytest
import torch
from torch.nn import functional as F

from potstill.compression import CompressionScheduler, PruningPolicy, RegularizationPolicy
from potstill.compression.pruners import ActivationAPoZRankedFilterPruner, AutomatedGradualPruner
from potstill.compression.regularizers import GroupLassoRegularizer, L0Regularizer, L1Regularizer
from potstill.models import create_model
from potstill.thinning import thin, trace
from potstill.thinning.testing import make_sensitive, zero_channels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

STEPS, EPOCHS = 3, 3
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3),
    "fused sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-3, weight_decay=1e-3),
    "fused adamw": lambda p: torch.optim.AdamW(p, 1e-3, fused=True),
    "capturable adamw": lambda p: torch.optim.AdamW(p, 1e-3, capturable=True),
}


def batch(device="cuda"):
    torch.manual_seed(1)
    return torch.randn(16, 3, 32, 32).to(device), torch.randint(10, (16,)).to(device)


def setting(device="cuda"):
    torch.manual_seed(0)
    model = create_model("resnet20_cifar").to(device)
    scheduler = CompressionScheduler(model, batch(device)[0])
    names = [name for name, parameter in model.named_parameters() if parameter.dim() == 4]
    policies = [
        PruningPolicy(AutomatedGradualPruner(0.1, 0.8, names)),
        RegularizationPolicy(L1Regularizer(dict.fromkeys(names, 1e-5))),
        RegularizationPolicy(GroupLassoRegularizer(dict.fromkeys(names, (1e-4, "Filters")))),
    ]
    for policy in policies:
        scheduler.add_policy(policy, starting_epoch=0, ending_epoch=EPOCHS)
    return model, scheduler


def train(model, scheduler, optimizer, epochs, kind=None):
    x, y = batch()
    scaler = torch.amp.GradScaler("cuda", enabled=kind == torch.float16)
    for epoch in epochs:
        scheduler.on_epoch_begin(epoch, optimizer, STEPS)
        for i in range(STEPS):
            at = (epoch, i, STEPS, optimizer)
            scheduler.on_minibatch_begin(*at)
            assert_zero(model, scheduler)
            with torch.autocast("cuda", kind or torch.bfloat16, enabled=kind is not None):
                loss = F.cross_entropy(model(x), y)
            loss = scheduler.before_backward_pass(epoch, i, STEPS, loss, optimizer)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            scheduler.before_parameter_optimization(*at)
            scaler.step(optimizer)
            scaler.update()
            scheduler.on_minibatch_end(*at)
        scheduler.on_epoch_end(epoch, optimizer, minibatches_per_epoch=STEPS)
    assert_zero(model, scheduler)


def assert_zero(model, scheduler):
    for name, parameter in model.named_parameters():
        mask = scheduler.zeros_mask_dict[name].mask
        if mask is not None:
            assert mask.device == parameter.device
            assert bool((parameter[mask == 0] == 0).all()), name


@pytest.mark.parametrize("kind", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zero_stays_zero(name, kind):
    model, scheduler = setting()
    train(model, scheduler, OPTIMIZERS[name](model.parameters()), range(EPOCHS), kind)
    pruned = [name for name, mask in scheduler.zeros_mask_dict.items() if mask.mask is not None]
    assert len(pruned) == 21
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_masks_follow_a_model_that_is_moved():
    model, scheduler = setting("cpu")
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    scheduler.on_epoch_begin(0, optimizer, STEPS)
    model.cuda()
    train(model, scheduler, optimizer, range(1, EPOCHS))
    assert scheduler.thin(optimizer).max_relative_difference <= 1e-5  # the example inputs were left on the CPU


def test_a_state_from_the_cpu_goes_where_the_model_is():
    def gathering(device):
        torch.manual_seed(0)
        model = create_model("simplenet_cifar").to(device)
        scheduler = CompressionScheduler(model, batch(device)[0])
        policy = PruningPolicy(ActivationAPoZRankedFilterPruner(0.5, ["conv1.weight"]))
        scheduler.add_policy(policy, epochs=[1])
        return model.train(), scheduler

    model, scheduler = gathering("cpu")
    scheduler.on_epoch_begin(0)
    model(batch("cpu")[0])
    resumed, other = gathering("cuda")
    other.load_state_dict(scheduler.state_dict())
    resumed(batch()[0])
    other.on_epoch_begin(1)
    assert_zero(resumed, other)
    assert int((resumed.conv1.weight.flatten(1) == 0).all(1).sum()) == 3


@pytest.mark.parametrize("autocast", [False, True])
def test_thinning_is_compared_without_tf32(autocast):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64).cuda()
    model = make_sensitive(create_model("resnet18", num_classes=10).cuda(), x).eval()
    zero_channels(model, trace(model, x))
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            recipe = thin(model, x)
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
    assert recipe.max_relative_difference <= 1e-5
    assert recipe.parameters[1] < recipe.parameters[0]


@pytest.mark.parametrize("sampling", ["minibatch", "example"])
def test_gates_in_half_precision(sampling):
    torch.manual_seed(0)
    model = create_model("googlenet_cifar").cuda()
    optimizer, (x, y) = torch.optim.AdamW(model.parameters(), 1e-3), batch()
    scheduler = CompressionScheduler(model, x[:2])
    weights = ["inception_blocks.*conv.weight"]
    gates = L0Regularizer(weights, target_sparsity=0.5, droprate_init=0.05, sampling=sampling)
    scheduler.add_policy(RegularizationPolicy(gates), starting_epoch=0, ending_epoch=2)
    scaler = torch.amp.GradScaler("cuda")
    scheduler.attach(optimizer, 5)
    for _ in range(10):
        with torch.autocast("cuda", torch.float16):
            loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    scheduler.finish()
    recipe = scheduler.thin(optimizer)
    assert recipe.max_relative_difference <= 1e-5
    assert recipe.parameters[1] < 0.51 * recipe.parameters[0]
