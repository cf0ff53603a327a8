"""An LSTM language model: AGP takes 90 % of its weights while it learns the words of Python's own manual.

python examples/lstm_words.py
"""

import argparse
import math
import re
from collections import Counter
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.compression import dict_config, sparsity_text

WEIGHTS = ["lstm.weight_*", "words.weight"]
SCHEDULE = {
    "pruners": {
        "agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.9, "weights": WEIGHTS,
        },
    },
    "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 1, "ending_epoch": 5, "frequency": 1}],
}  # fmt: skip


class Language(nn.Module):
    """Predicts the next word; (steps, batch) -> (steps, batch, words)."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, 64)
        self.lstm = nn.LSTM(64, 64)
        self.out = nn.Linear(64, words)

    def forward(self, text: Tensor) -> Tensor:
        return self.out(self.lstm(self.words(text))[0])


def read(limit: int) -> tuple[Tensor, int]:
    """Return the text as numbers of words, and how many words there are; rare ones are number 0."""
    text = re.findall(r"[a-z]+|[.,]", " ".join(topics.values()).lower())[:limit]
    common = [word for word, count in Counter(text).most_common(1000) if count > 2]
    number = {word: index + 1 for index, word in enumerate(common)}
    return torch.tensor([number.get(word, 0) for word in text]), len(number) + 1


def main(epochs: int, limit: int) -> None:
    """Train; print the perplexity of each epoch, and what is zero at the end."""
    torch.manual_seed(0)
    text, words = read(limit)
    columns = text[: len(text) // 20 * 20].reshape(20, -1).t()  # 20 texts side by side
    model = Language(words)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    pieces = [part for part in columns.split(35) if len(part) > 1]
    scheduler = dict_config(model, optimizer, SCHEDULE)
    scheduler.attach(optimizer, minibatches_per_epoch=len(pieces))
    for epoch in range(epochs):
        total = 0.0
        for part in pieces:
            loss = F.cross_entropy(model(part[:-1]).flatten(0, 1), part[1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch}: perplexity {math.exp(total / len(pieces)):.1f}")
    scheduler.finish()
    print(sparsity_text(model))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--words", type=int, default=60_000, help="how much of the text to read")
    options = parser.parse_args()
    main(options.epochs, options.words)
