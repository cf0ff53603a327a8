"""`python -m potstill.command.lab.symmetry`: the symmetry problem of Rumelhart, Hinton, Williams 1986.

D. E. Rumelhart, G. E. Hinton, R. J. Williams, "Learning representations by back-propagating errors", Nature 323, pages
533-536, figure 1. A 6-2-1 network of sigmoid units learns which of the 64 binary vectors of length 6 read the same
backwards. After each sweep through all of them weights change by the accumulated gradient of
E = 1/2 sum over vectors of (output - target)^2:

    eq. 8: delta w(t) = -epsilon dE/dw(t)
    eq. 9: delta w(t) = -epsilon dE/dw(t) + alpha delta w(t-1)

The paper used eq. 9 with epsilon = 0.1, alpha = 0.9, weights at first uniform in -0.3..0.3, and took 1,425 sweeps.

Gradient descent with the paper's rate, eq. 8 with epsilon = 0.1, mostly ends in minima where a hidden unit's mirrored
weights are equal instead of opposite; with 0.5 it solves the problem, which is therefore the default for eq. 8.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from potstill.models import create_model
from potstill.models.datasets import load_dataset
from potstill.thinning.files.text import Lines

from ..cli.option_types import count, count0, positive
from ..errors import one_line
from ..plots.trajectory import plot_symmetry
from ..run.log_text import set_up_console
from .symmetric_weights import Weights

logger = logging.getLogger("potstill")

RATES = {8: 0.5, 9: 0.1}
MOMENTUM = {8: 0.0, 9: 0.9}


@dataclass(frozen=True)
class Start:
    """One start: its seed, the sweeps until it had solved the problem (None: not), its weights then or at last."""

    seed: int
    sweeps: int | None
    weights: Weights


@dataclass(frozen=True)
class Protocol:
    """How to train: by eq. 8 or 9; solved is when every output is nearer to its target than the tolerance."""

    rule: int = 9
    rate: float = 0.1
    sweeps: int = 6000
    tolerance: float = 0.1


def experiment(protocol: Protocol, seeds: Sequence[int]) -> list[Start]:
    """Train a network from each seed, all at once, each until it has solved the problem or the sweeps run out."""
    vectors, labels = next(load_dataset("symmetry").test.batches(64))
    networks = [_network(seed) for seed in seeds]
    parameters: dict[str, Tensor] = stack_module_state(networks)[0]
    optimizer = torch.optim.SGD(list(parameters.values()), lr=protocol.rate, momentum=MOMENTUM[protocol.rule])
    outputs = vmap(lambda weights: functional_call(networks[0], weights, (vectors,))[:, 0])
    solved: dict[int, Start] = {}
    for sweep in range(protocol.sweeps + 1):
        errors = outputs(parameters) - labels
        right = errors.detach().abs().amax(1) < protocol.tolerance
        for place in right.nonzero()[:, 0].tolist():
            if place not in solved:
                solved[place] = Start(seeds[place], sweep, _weights(parameters, place))
        if len(solved) == len(seeds) or sweep == protocol.sweeps:
            break
        optimizer.zero_grad()
        errors.square().sum().div(2).backward()  # the starts do not meet: each gets its own gradient
        optimizer.step()
    return [solved.get(i) or Start(seed, None, _weights(parameters, i)) for i, seed in enumerate(seeds)]


def _network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return create_model("symmetry")


def _weights(parameters: Mapping[str, Tensor], place: int) -> Weights:
    names = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")
    hidden, hidden_bias, output, output_bias = (parameters[name][place].detach().clone() for name in names)
    return Weights(hidden, hidden_bias, output[0], output_bias[0])


def table(starts: Sequence[Start]) -> str:
    """Return a row for each start that solved the problem.

    Sweeps, and how near its weights are to the paper's structure.
    """
    rows = [
        [
            start.seed,
            f"{start.sweeps:,}",
            f"{100 * start.weights.mirror_error():.2f}",
            f"{100 * start.weights.opposition_error():.2f}",
            " : ".join(f"{size:.2f}" for size in start.weights.sizes()),
            "yes" if start.weights.is_the_papers() else "no",
        ]
        for start in starts
        if start.sweeps is not None
    ]
    heads = ["seed", "sweeps", "mirror error (%)", "opposition error (%)", "sizes of pairs", "as in the paper"]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True, colalign=["right"] * len(heads))


def summary(protocol: Protocol, starts: Sequence[Start]) -> str:
    """Return how many starts solved the problem, and in how many sweeps."""
    told = f"eq. {protocol.rule}, epsilon {protocol.rate:g}, momentum {MOMENTUM[protocol.rule]:g}: "
    sweeps = [start.sweeps for start in starts if start.sweeps is not None]
    told += f"{len(sweeps)} of {len(starts)} starts solved the problem"
    if not sweeps:
        return f"{told} in {protocol.sweeps:,} sweeps"
    alike = sum(start.weights.is_the_papers() for start in starts if start.sweeps is not None)
    return (
        f"{told}, after {min(sweeps):,} to {max(sweeps):,} sweeps (median {round(statistics.median(sweeps)):,}; the "
        f"paper's took 1,425); {alike} of them have the paper's structure"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment; status 1 if no start solved the problem."""
    options = _parser().parse_args(arguments)
    set_up_console(debug=False)
    protocol = Protocol(options.rule, options.lr or RATES[options.rule], options.sweeps, options.tolerance)
    starts = experiment(protocol, range(options.seed, options.seed + options.starts))
    solved = [start for start in starts if start.sweeps is not None]
    if solved:
        told = f"{table(starts)}\n\nweights from seed {solved[0].seed}:\n{solved[0].weights}\n"
        logger.info("%s", Lines(told))
        if options.plot:
            with one_line(debug=False):
                plot_symmetry(solved[0].weights, options.plot)
    logger.info("%s", summary(protocol, starts))
    return 0 if solved else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m potstill.command.lab.symmetry", description="The symmetry problem from many starts."
    )
    add = parser.add_argument
    add("--rule", type=int, choices=(8, 9), default=9, help="8: gradient descent, 9: with momentum (default)")
    add("--lr", type=positive, metavar="X", help="epsilon (default: 0.1 for rule 9, 0.5 for rule 8)")
    add("--sweeps", type=count, default=6000, metavar="N", help="at most (default: %(default)s)")
    add("--starts", type=count, default=20, metavar="N", help="number of starts (default: %(default)s)")
    add("--seed", type=count0, default=0, metavar="N", help="of the first start; the others follow (default: 0)")
    add(
        "--tolerance",
        type=positive,
        default=0.1,
        metavar="X",
        help="solved is when every output is nearer to its target than this (default: %(default)s)",
    )
    add("--plot", type=Path, metavar="DIR", help='draw the weights of the first that solved it (extra "plot")')
    return parser


if __name__ == "__main__":
    sys.exit(main())
