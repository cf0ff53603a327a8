"""A scheduler attached to loops of all kinds: closures, loss scalers, runs that go on, several optimizers."""

import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.compression import CompressionScheduler, LRPolicy, PruningPolicy, RegularizationPolicy, Window, attach
from potstill.compression.pruners import AutomatedGradualPruner, GlobalMagnitudePruner, RigLPruner
from potstill.compression.regularizers import L0Regularizer, L1Regularizer

STEPS, EPOCHS = 4, 4
X = torch.randn(STEPS * EPOCHS, 8, 6, generator=torch.Generator().manual_seed(1))


def setting(*policies, optimizer_class=torch.optim.Adam, window=None, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))
    optimizer = optimizer_class(model.parameters(), **{"lr": 0.02, **options})
    scheduler = CompressionScheduler(model, X[0])
    for policy in policies:
        scheduler.add_policy(policy, window or Window.between(0, EPOCHS))
    return model, optimizer, scheduler


def backward(model, x):
    loss = (model(x) - 1).square().mean()
    loss.backward()
    return loss


def by_statements(model, optimizer, x):
    optimizer.zero_grad()
    backward(model, x)
    optimizer.step()


def by_closure(model, optimizer, x):
    def closure():
        optimizer.zero_grad()
        return backward(model, x)

    optimizer.step(closure)


def by_keyword(model, optimizer, x):
    def closure():
        optimizer.zero_grad()
        return backward(model, x)

    optimizer.step(closure=closure)


def policies():
    copies = {"mask_on_forward_only": True, "use_double_copies": True}
    return {
        "penalty": lambda: RegularizationPolicy(L1Regularizer({"0.weight": 0.05})),
        "masks": lambda: PruningPolicy(AutomatedGradualPruner(0.2, 0.6, ["0.weight"])),
        "copies": lambda: PruningPolicy(AutomatedGradualPruner(0.2, 0.6, ["0.weight"]), arguments(**copies)),
    }


def arguments(**given):
    from potstill.compression import PrunerArgs

    return PrunerArgs(**given)


@pytest.mark.parametrize("name", policies())
@pytest.mark.parametrize("step", [by_closure, by_keyword])
def test_a_closure_changes_nothing(name, step):
    results = []
    for how in (by_statements, step):
        model, optimizer, scheduler = setting(policies()[name]())
        scheduler.attach(optimizer, STEPS)
        for x in X:
            how(model, optimizer, x)
        results.append(model[0].weight.detach().clone())
    assert torch.equal(*results)


def test_a_closure_that_is_called_again_and_again():
    """LBFGS moves the weights between its calls: each sees masked weights and the terms."""
    model, optimizer, scheduler = setting(
        policies()["penalty"](), policies()["masks"](), optimizer_class=torch.optim.LBFGS, lr=0.5, max_iter=5
    )
    scheduler.attach(optimizer, STEPS)
    for x in X:
        expected = (model(x) - 1).square().mean() + 0.05 * model[0].weight.abs().sum()

        def closure(x=x):
            mask = scheduler.zeros_mask_dict["0.weight"].mask
            assert bool((model[0].weight[mask == 0] == 0).all())
            optimizer.zero_grad()
            return backward(model, x)

        torch.testing.assert_close(optimizer.step(closure), expected)
    assert int((model[0].weight == 0).sum()) >= int(0.5 * model[0].weight.numel())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("aim", [{"target_sparsity": 0.5}, {"strength": 0.3}])
@pytest.mark.parametrize("given", [False, True])
def test_gates_under_a_loss_scaler(fused, aim, given, monkeypatch):
    """An ordinary optimizer's gradients are unscaled before its step, those of the gates are not."""
    if given:
        monkeypatch.setattr(attach, "_calling_scaler", lambda: pytest.fail("the scaler was given"))

    def sparsity(scaled):
        policy = RegularizationPolicy(L0Regularizer(["0.weight"], **aim))
        model, optimizer, scheduler = setting(policy, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled=scaled)
        scheduler.attach(optimizer, STEPS, scaler=scaler if given else None)
        for x in X:
            optimizer.zero_grad()
            scaler.scale((model(x) - 1).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
        return policy.metrics()

    scaled, plain = sparsity(True), sparsity(False)
    assert scaled == {name: pytest.approx(value, rel=1e-4) for name, value in plain.items()}


@pytest.mark.parametrize("window", [Window.between(1, 3), Window.between(3, 14, 2, "minibatch")])
@pytest.mark.parametrize(
    "make",
    [lambda: GlobalMagnitudePruner(0.2, ["0.weight", "2.weight"], of="alive"), lambda: RigLPruner(["0.weight"], 0.5)],
)
def test_a_run_that_goes_on_equals_one_that_did_not_stop(make, window):
    model, optimizer, scheduler = setting(PruningPolicy(make()), window=window)
    scheduler.attach(optimizer, STEPS)
    states = []
    for x in X:
        file = io.BytesIO()
        torch.save([part.state_dict() for part in (model, optimizer, scheduler)], file)
        states.append(file)
        by_statements(model, optimizer, x)
    for steps, file in enumerate(states):
        parts = setting(PruningPolicy(make()), window=window)
        file.seek(0)
        for part, state in zip(parts, torch.load(file, weights_only=True), strict=True):
            part.load_state_dict(state)
        parts[2].attach(parts[1], STEPS, steps)
        for x in X[steps:]:
            by_statements(*parts[:2], x)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), parts[0].parameters(), strict=True)), steps


def test_a_plateau_waits_for_the_first_validation():
    model, optimizer, scheduler = setting()

    def plateau(o):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.1, patience=0)

    scheduler.add_policy(LRPolicy(plateau, optimizer), starting_epoch=0, ending_epoch=EPOCHS)
    attachment, rates = scheduler.attach(optimizer, STEPS), []
    for value in (1.0, 0.5, 0.7, 0.4):
        for x in X[:STEPS]:
            by_statements(model, optimizer, x)
        attachment.metrics = {"min": value}
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.02, 0.02, 0.02, 0.002])  # 0.7 is worse than 0.5, and counts at the end of the next


def test_a_plateau_misses_what_it_never_gets():
    model, optimizer, scheduler = setting()
    policy = LRPolicy(torch.optim.lr_scheduler.ReduceLROnPlateau, optimizer)
    scheduler.add_policy(policy, starting_epoch=0, ending_epoch=EPOCHS)
    scheduler.attach(optimizer, STEPS)
    for x in X[: 2 * STEPS - 1]:
        by_statements(model, optimizer, x)
    with pytest.raises(ValueError, match="where the scheduler is attached, attachment.metrics = {'min': value}"):
        by_statements(model, optimizer, x)


def test_one_optimizer_at_a_time():
    model, optimizer, scheduler = setting(policies()["masks"]())
    attachment = scheduler.attach(optimizer, STEPS)
    other = torch.optim.SGD(model[2:].parameters(), lr=0.1)
    for again in (other, optimizer):
        with pytest.raises(ValueError, match="this scheduler is attached: its steps are those of one optimizer"):
            scheduler.attach(again, STEPS)
    attachment.remove()
    scheduler.attach(other, STEPS)


class PassingOn(torch.optim.Optimizer):
    """An optimizer around another, without hooks of its own, as accelerate makes one."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups

    def step(self, closure=None):
        return self.optimizer.step(closure)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)


def test_an_optimizer_around_another():
    results = []
    for wrapped in (False, True):
        model, optimizer, scheduler = setting(policies()["penalty"](), policies()["masks"]())
        optimizer = PassingOn(optimizer) if wrapped else optimizer
        scheduler.attach(optimizer, STEPS)
        for x in X:
            by_statements(model, optimizer, x)
        results.append(model[0].weight.detach().clone())
    assert torch.equal(*results)
    assert bool((results[0] == 0).any())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2.5,), "minibatches_per_epoch must be a whole number of at least 1, not 2.5"),
        ((4, -1), "steps must be a whole number of at least 0, not -1"),
    ],
)
def test_numbers_of_steps_are_checked(arguments, message):
    _, optimizer, scheduler = setting()
    with pytest.raises(ValueError, match=message):
        scheduler.attach(optimizer, *arguments)
    with pytest.raises(TypeError, match="attach takes one torch.optim.Optimizer, not a list"):
        scheduler.attach([optimizer], 4)


@pytest.mark.parametrize("reduce", [torch.mean, torch.sum])
@pytest.mark.parametrize("count", [1, 6, 12])
def test_a_loss_for_each_example(reduce, count):
    """The penalty is added to each element; 12 is the number of rows too."""
    policy = RegularizationPolicy(L1Regularizer({"0.weight": 0.1}))
    model, optimizer, scheduler = setting(policy)
    x = torch.randn(count, 6)
    losses = F.cross_entropy(model(x), torch.zeros(count, dtype=torch.long), reduction="none")
    reduce(losses + 0.1 * model[0].weight.abs().sum()).backward(retain_graph=True)
    expected = model[0].weight.grad.clone()
    optimizer.zero_grad()
    scheduler.on_minibatch_begin(0, 0, STEPS, optimizer)
    reduce(scheduler.before_backward_pass(0, 0, STEPS, losses, optimizer)).backward()
    torch.testing.assert_close(model[0].weight.grad, expected)


def test_a_loss_must_be_a_tensor():
    _, optimizer, scheduler = setting(policies()["penalty"]())
    scheduler.on_minibatch_begin(0, 0, STEPS, optimizer)
    with pytest.raises(TypeError, match="takes the loss as a tensor, not a float"):
        scheduler.before_backward_pass(0, 0, STEPS, 1.0, optimizer)
