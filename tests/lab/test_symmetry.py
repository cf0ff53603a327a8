"""The symmetry problem: both rules solve it, with weights as in the paper; learning is that of the equations."""

import pytest
import torch

from potstill.command.lab.symmetric_weights import Weights
from potstill.command.lab.symmetry import Protocol, experiment, main
from potstill.command.run.evaluation import classification_loss
from potstill.models import create_model
from potstill.models.datasets import load_dataset


def perfect(scale=10.0):
    """Weights of ratio 1 : 2 : 4 that solve the problem."""
    row = scale * torch.tensor([1.0, 2.0, 4.0, -4.0, -2.0, -1.0])
    hidden = torch.stack([row, -row])
    return Weights(hidden, torch.tensor([-4.0, -4.0]), torch.tensor([-20.0, -20.0]), torch.tensor(8.0))


def test_measures_of_structure():
    weights = perfect()
    assert weights.mirror_error() == 0 and weights.opposition_error() == 0
    assert weights.sizes() == [1, 2, 4]
    assert weights.is_the_papers()
    bent = perfect()
    bent.hidden[0, 0] += 8  # of a largest weight of 40
    assert bent.mirror_error() == pytest.approx(0.2)
    assert bent.opposition_error() == pytest.approx(0.2)
    assert not bent.is_the_papers()


def test_two_sweeps_follow_the_equations():
    """Against gradients written out by hand: delta_j = (y - d) y (1 - y) at the output, and back through the hidden."""
    vectors, labels = next(load_dataset("symmetry").test.batches(64))
    x, d = vectors.flatten(1).double(), labels.double()
    for rule, alpha in ((8, 0.0), (9, 0.9)):
        torch.manual_seed(3)
        net = create_model("symmetry")
        w, b, v, c = (p.detach().double() for p in (*net.hidden.parameters(), *net.output.parameters()))
        deltas = [torch.zeros_like(t) for t in (w, b, v, c)]
        for _ in range(2):
            h = torch.sigmoid(x @ w.T + b)
            y = torch.sigmoid(h @ v[0] + c)
            out = (y - d) * y * (1 - y)
            hid = out[:, None] * v * h * (1 - h)
            gradients = (hid.T @ x, hid.sum(0), (out @ h)[None], out.sum()[None])
            deltas = [-0.1 * g + alpha * delta for g, delta in zip(gradients, deltas, strict=True)]
            w, b, v, c = (t + delta for t, delta in zip((w, b, v, c), deltas, strict=True))
        (start,) = experiment(Protocol(rule, 0.1, sweeps=2), [3])
        assert start.sweeps is None
        assert torch.allclose(start.weights.hidden.double(), w, atol=1e-6)
        assert torch.allclose(start.weights.hidden_bias.double(), b, atol=1e-6)
        assert torch.allclose(start.weights.output.double(), v[0], atol=1e-6)
        assert torch.allclose(start.weights.output_bias.double(), c[0], atol=1e-6)


@pytest.mark.parametrize(("rule", "rate"), [(8, 0.5), (9, 0.1)])
def test_starts_that_solve_the_problem_have_the_papers_weights(rule, rate):
    starts = experiment(Protocol(rule, rate, sweeps=1500), range(4))
    solved = [start for start in starts if start.sweeps is not None]
    assert len(solved) >= 2
    for start in solved:
        assert start.weights.mirror_error() < 0.01
        assert start.weights.is_the_papers()
        net = create_model("symmetry")
        with torch.no_grad():
            net.hidden.weight.copy_(start.weights.hidden)
            net.hidden.bias.copy_(start.weights.hidden_bias)
            net.output.weight.copy_(start.weights.output[None])
            net.output.bias.copy_(start.weights.output_bias)
        vectors, labels = next(load_dataset("symmetry").test.batches(64))
        assert (net(vectors)[:, 0] - labels).abs().max() < 0.1


def test_the_command_tells_sweeps_weights_and_how_many(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["--rule", "8", "--starts", "2", "--plot", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "eq. 8, epsilon 0.5, momentum 0: 2 of 2 starts solved the problem" in told
    assert "hidden unit 1:" in told and "output unit: bias" in told
    assert (tmp_path / "symmetry.png").exists()
    assert main(["--sweeps", "10", "--starts", "2"]) == 1
    assert "0 of 2 starts solved the problem in 10 sweeps" in capsys.readouterr().out


def test_a_single_output_trains_by_half_the_squared_error():
    outputs, labels = torch.tensor([[0.8], [0.3]], requires_grad=True), torch.tensor([1, 1])
    loss, logits = classification_loss(outputs, labels)
    assert loss.item() == pytest.approx((0.2**2 + 0.7**2) / 4)
    assert logits.argmax(1).tolist() == [1, 0]
    loss.backward()
    assert outputs.grad.flatten().tolist() == pytest.approx([-0.1, -0.35])
