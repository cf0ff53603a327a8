"""A scheduler attached to an optimizer does what the six hooks do."""

import pytest
import torch
from torch import nn

from potstill.compression import CompressionScheduler, LRPolicy, PruningPolicy, RegularizationPolicy, Window
from potstill.compression.pruners import AutomatedGradualPruner, SparsityLevelParameterPruner
from potstill.compression.regularizers import L1Regularizer

STEPS, EPOCHS = 5, 4


def setting(optimizer_class=torch.optim.SGD, **options):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = optimizer_class(model.parameters(), lr=0.1, **options)
    scheduler = CompressionScheduler(model, torch.zeros(2, 6))
    scheduler.add_policy(
        PruningPolicy(AutomatedGradualPruner(0.1, 0.7, ["0.weight"])), starting_epoch=0, ending_epoch=3
    )
    scheduler.add_policy(
        PruningPolicy(SparsityLevelParameterPruner({"2.weight": 0.5})), Window.between(7, 16, 3, "minibatch")
    )
    scheduler.add_policy(RegularizationPolicy(L1Regularizer({"2.weight": 0.01})), starting_epoch=1, ending_epoch=3)
    lr = LRPolicy(lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5), optimizer)
    scheduler.add_policy(lr, starting_epoch=0, ending_epoch=EPOCHS)
    batches = [(torch.randn(7, 6), torch.randint(0, 3, (7,))) for _ in range(STEPS)]
    return model, optimizer, scheduler, batches


@pytest.mark.parametrize(
    ("optimizer_class", "options"),
    [(torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}), (torch.optim.AdamW, {"weight_decay": 0.1})],
)
def test_attached_equals_hooks(optimizer_class, options):
    model, optimizer, scheduler, batches = setting(optimizer_class, **options)
    for epoch in range(EPOCHS):
        scheduler.on_epoch_begin(epoch, optimizer, STEPS)
        for i, (x, y) in enumerate(batches):
            at = (epoch, i, STEPS, optimizer)
            scheduler.on_minibatch_begin(*at)
            loss = scheduler.before_backward_pass(epoch, i, STEPS, nn.functional.cross_entropy(model(x), y), optimizer)
            optimizer.zero_grad()
            loss.backward()
            scheduler.before_parameter_optimization(*at)
            optimizer.step()
            scheduler.on_minibatch_end(*at)
        scheduler.on_epoch_end(epoch, optimizer, minibatches_per_epoch=STEPS)

    plain, plain_optimizer, attached, batches = setting(optimizer_class, **options)
    attached.attach(plain_optimizer, STEPS)
    for _ in range(EPOCHS):
        for x, y in batches:
            plain_optimizer.zero_grad()
            nn.functional.cross_entropy(plain(x), y).backward()
            plain_optimizer.step()
            mask = attached.zeros_mask_dict["0.weight"].mask
            assert bool((plain[0].weight[mask == 0] == 0).all())

    assert plain_optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**4)
    assert int((plain[0].weight == 0).sum()) == int(0.7 * 48)
    assert int((plain[2].weight == 0).sum()) == 12
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_detached_it_leaves_weights_alone():
    model, optimizer, scheduler, batches = setting()
    attachment = scheduler.attach(optimizer, STEPS)
    attachment.remove()
    for x, y in batches:
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert int((model[0].weight == 0).sum()) < 2 * 4, "only the first masks acted, once"


def test_an_epoch_needs_minibatches():
    _, optimizer, scheduler, _ = setting()
    with pytest.raises(ValueError, match="minibatches_per_epoch must be a whole number of at least 1, not 0"):
        scheduler.attach(optimizer, 0)


@pytest.mark.parametrize("fused", [False, True])
def test_terms_are_of_the_strength_asked_for_under_a_loss_scaler(fused):
    """Fused optimizers undo the scaling within their step: at the hook before it, gradients are still scaled."""

    def trained(scaled):
        torch.manual_seed(0)
        model = nn.Linear(6, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
        scheduler = CompressionScheduler(model)
        scheduler.add_policy(RegularizationPolicy(L1Regularizer({"weight": 1.0})), starting_epoch=0, ending_epoch=9)
        scheduler.attach(optimizer, 5)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
        for x in torch.randn(7, 4, 6):
            optimizer.zero_grad()
            scaler.scale(model(x).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
        return model.weight.detach()

    torch.testing.assert_close(trained(scaled=True), trained(scaled=False))


def test_shown():
    _, optimizer, scheduler, _ = setting()
    attachment = scheduler.attach(optimizer, STEPS, steps=7)
    assert repr(attachment) == "Attachment: SGD runs a CompressionScheduler; epoch 1, minibatch 2 of 5"
    rate = scheduler.policies[-1]
    assert repr(rate) == f"LRPolicy {rate.name}: StepLR, epochs 0-3"


@pytest.mark.parametrize(
    ("rate", "told"), [(0.1, []), (0.02, ["the curve starts from the rates 0.1 of the optimizer"])]
)
def test_optimizer_of_another_rate(rate, told, caplog):
    model, _, scheduler, _ = setting()
    attachment = scheduler.attach(torch.optim.SGD(model.parameters(), lr=rate), STEPS)
    scheduler.on_epoch_begin(0, attachment.optimizer, STEPS)  # once is enough
    assert [words for record in caplog.records for words in told if words in record.getMessage()] == told
    assert len(caplog.records) == len(told) and all(
        "those of the optimizer that trains, 0.02," in r.getMessage() for r in caplog.records
    )
    assert attachment.optimizer.param_groups[0]["lr"] == 0.1


def test_rates_that_another_curve_has_set_are_not_told(caplog):
    _, optimizer, scheduler, _ = setting()
    low = LRPolicy(lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.1), optimizer)
    late = LRPolicy(lambda o: torch.optim.lr_scheduler.StepLR(o, 2), optimizer)
    for policy in (low, late):
        scheduler.add_policy(policy, starting_epoch=0, ending_epoch=2)
    scheduler.attach(optimizer, STEPS)
    assert not caplog.records
