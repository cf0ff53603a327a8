"""The weights that solve the symmetry problem, and what Rumelhart, Hinton and Williams 1986 found in them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

TOLERANCE = 0.1
"""How far two sizes may be apart, relative to the largest weight, to be called equal."""


@dataclass(frozen=True)
class Weights:
    """The parameters of a 6-2-1 network: hidden (2, 6), its biases (2,), output (2,), its bias ()."""

    hidden: Tensor
    hidden_bias: Tensor
    output: Tensor
    output_bias: Tensor

    def mirror_error(self) -> float:
        """Return how far a hidden unit's weights on both sides of the middle are from equal size and opposite sign.

        The largest |w_i + w_(7-i)| over the largest |w| of its unit, the worse of the two units.
        """
        return float(((self.hidden + self.hidden.flip(1)).abs().amax(1) / self.hidden.abs().amax(1)).max())

    def opposition_error(self) -> float:
        """Return how far the two hidden units are from each other's negative, relative to the largest weight."""
        return float(self.hidden.sum(0).abs().max() / self.hidden.abs().max())

    def sizes(self) -> list[float]:
        """Return the sizes of the three pairs of weights, mean of both units, in rising order, the smallest as 1.

        In the paper 1 : 2 : 4, which gives each half of a vector a sum of its own.
        """
        pairs = self.hidden.abs().mean(0)[:3].sort().values
        return (pairs / pairs[0].clamp_min(1e-30)).tolist()

    def is_the_papers(self) -> bool:
        """Return whether weights mirror, units oppose each other and are off at symmetry, and the output is then on."""
        mirrored = max(self.mirror_error(), self.opposition_error()) < TOLERANCE
        return mirrored and bool((self.hidden_bias < 0).all()) and float(self.output_bias) > 0

    def __str__(self) -> str:
        """Show the weights as in the paper's figure 1."""
        rows = zip(self.hidden.tolist(), self.hidden_bias.tolist(), self.output.tolist(), strict=True)
        lines = [
            f"hidden unit {unit}: {' '.join(f'{w:7.2f}' for w in row)}   bias {bias:.2f}   to output {out:.2f}"
            for unit, (row, bias, out) in enumerate(rows, 1)
        ]
        return "\n".join([*lines, f"output unit: bias {float(self.output_bias):.2f}"])
