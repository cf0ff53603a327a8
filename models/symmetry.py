"""The network that detects mirror symmetry of six binary inputs with two hidden units.

Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors", Nature 323, figure 1:
6 inputs, 2 hidden sigmoid units, 1 sigmoid output; the weights start uniform between -0.3 and 0.3. The learned solution
has each hidden unit's weights symmetric about the middle, equal in size and opposite in sign.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .registry import ModelError, register_model

INPUTS = 6
HIDDEN = 2
INITIAL_RANGE = 0.3


class SymmetryNet(nn.Module):
    """(N, inputs, 1, 1) or (N, inputs) -> (N, 1): the output unit's value in (0, 1), to be compared with the label.

    `hidden.weight` is (2, inputs), `output.weight` (1, 2).
    """

    def __init__(self, inputs: int = INPUTS) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -INITIAL_RANGE, INITIAL_RANGE)

    def forward(self, x: Tensor) -> Tensor:
        """Return the probability that each input vector is symmetric."""
        return torch.sigmoid(self.output(torch.sigmoid(self.hidden(x.flatten(1)))))


@register_model("symmetry", input_shape=(INPUTS, 1, 1), num_classes=2)
def symmetry(num_classes: int, in_channels: int) -> nn.Module:
    """The 6-2-1 sigmoid network of Rumelhart, Hinton and Williams; one output for two classes."""
    if num_classes != 2:
        raise ModelError(f"symmetry: its one output unit tells two classes apart, not {num_classes}")
    return SymmetryNet(in_channels)
