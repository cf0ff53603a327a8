"""The hard-concrete gate against its closed forms (Louizos et al. 2018)."""

import math

import pytest
import torch

from potstill.compression.regularizers.l0.gates import Gates
from potstill.compression.regularizers.l0.hard_concrete import HardConcrete

SAMPLES = 400_000


def cdf(value: float, log_alpha: float, temperature: float, low: float, high: float) -> float:
    """P(stretched concrete variable <= value), eq. 23 of the paper."""
    share = (value - low) / (high - low)
    return 1 / (1 + math.exp(-(temperature * math.log(share / (1 - share)) - log_alpha)))


@pytest.mark.parametrize("log_alpha", [-2.5, -0.7, 0.0, 1.3, 3.0])
@pytest.mark.parametrize("shape", [(2 / 3, -0.1, 1.1), (0.4, -0.3, 1.2)])
def test_samples_follow_the_closed_form(log_alpha: float, shape: tuple[float, float, float]) -> None:
    distribution = HardConcrete(*shape)
    locations = torch.tensor([log_alpha], dtype=torch.float64)
    uniform = torch.rand(SAMPLES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gates = distribution.sample(locations, uniform.logit())
    zero, below_one = cdf(0.0, log_alpha, *shape), cdf(1 - 1e-12, log_alpha, *shape)
    thresholds = torch.linspace(0, 1, 2001, dtype=torch.float64)[:-1] + 0.5 / 2000
    mean = sum(1 - cdf(t, log_alpha, *shape) for t in thresholds.tolist()) / 2000  # E[z] = integral of P(z > t)
    assert (gates == 0).double().mean().item() == pytest.approx(zero, abs=4e-3)
    assert (gates == 1).double().mean().item() == pytest.approx(1 - below_one, abs=4e-3)
    assert gates.mean().item() == pytest.approx(mean, abs=4e-3)
    assert distribution.open_probability(locations).item() == pytest.approx(1 - zero, abs=1e-9)


def test_evaluation_gates_are_equation_13() -> None:
    log_alpha = torch.tensor([-9.0, -2.5, -2.3, 0.0, 2.3, 2.5, 9.0], dtype=torch.float64)
    expected = [min(1.0, max(0.0, 1 / (1 + math.exp(-a)) * 1.2 - 0.1)) for a in log_alpha.tolist()]
    assert HardConcrete().deterministic(log_alpha).tolist() == pytest.approx(expected, abs=1e-12)


def test_position_is_the_inverse_of_the_evaluation_gate() -> None:
    distribution = HardConcrete(0.5, -0.2, 1.4)
    values = [0.0, 0.05, 0.5, 0.99]
    positions = torch.tensor([distribution.position(value) for value in values], dtype=torch.float64)
    assert distribution.deterministic(positions).tolist() == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("droprate", [0.05, 0.5, 0.9])
def test_droprate_is_the_probability_of_the_lower_half_before_stretching(droprate: float) -> None:
    distribution = HardConcrete()
    location = distribution.location(droprate)
    assert cdf(0.5, location, 1.0, 0.0, 1.0) == pytest.approx(droprate)
    gates = Gates(20_000, distribution, droprate, seed=0, device=torch.device("cpu"))
    assert gates.log_alpha.mean().item() == pytest.approx(location, abs=1e-3)
    assert gates.log_alpha.std().item() == pytest.approx(0.01, abs=1e-3)


def test_sum_of_probabilities_is_the_expected_number_of_open_gates() -> None:
    gates = Gates(50, HardConcrete(), 0.5, seed=3, device=torch.device("cpu"))
    with torch.no_grad():
        gates.log_alpha.copy_(torch.linspace(-4, 4, 50))
        counts = torch.stack([(gates.draw(training=True) > 0).float() for _ in range(4000)]).mean(0)
        expected = gates.open_probabilities()
    assert torch.allclose(counts, expected, atol=0.05)
    assert counts.sum().item() == pytest.approx(expected.sum().item(), rel=0.01)


def test_samples_have_the_gradient_of_the_same_noise() -> None:
    log_alpha = torch.tensor([-0.4, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([0.2, -0.5, 0.1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: HardConcrete().sample(a, noise), (log_alpha,))


def test_rows_are_drawn_independently() -> None:
    gates = Gates(3, HardConcrete(), 0.5, seed=0, device=torch.device("cpu"))
    rows = gates.draw_rows(500)
    assert rows.shape == (500, 3)
    assert len(rows.unique(dim=0)) > 400


def test_noise_leaves_the_global_generator_alone_and_comes_back_with_the_state() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    gates = Gates(4, HardConcrete(), 0.5, seed=0, device=torch.device("cpu"))
    gates.draw(training=True)
    state = gates.state_dict()
    following = gates.draw(training=True)
    assert torch.equal(torch.rand(3), expected)
    other = Gates(4, HardConcrete(), 0.5, seed=77, device=torch.device("cpu"))
    other.load_state_dict(state)
    assert torch.equal(other.draw(training=True), following)


def test_a_state_of_another_number_of_gates_is_refused() -> None:
    state = Gates(4, HardConcrete(), 0.5, seed=0, device=torch.device("cpu")).state_dict()
    other = Gates(5, HardConcrete(), 0.5, seed=0, device=torch.device("cpu"))
    with pytest.raises(ValueError, match="the state has 4 gates, the model 5"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.0, -0.1, 1.1), "temperature must be above 0"), ((0.5, 0.1, 1.1), "must reach from below 0 to above 1")],
)
def test_impossible_shapes_are_refused(arguments: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HardConcrete(*arguments)
