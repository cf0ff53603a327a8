"""Hugging Face Trainer: units and heads of a small BERT go during training; the model is saved and loaded again.

python examples/hugging_face_bert.py
"""

import argparse
import tempfile

import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from potstill.integrations.transformers import CompressionCallback, load_thinned, save_thinned

SCHEDULE = {
    "pruners": {
        "units": {
            "class": "L1RankedStructureParameterPruner_AGP", "initial_sparsity": 0.1, "final_sparsity": 0.5,
            "group_type": "Filters", "weights": ["bert.encoder.layer.*.intermediate.dense.weight"],
        },
        "heads": {
            "class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.5, "group_type": "Coupled",
            "weights": ["bert.encoder.layer.*.attention.self.value.weight"],
        },
    },
    "policies": [
        {"pruner": {"instance_name": "units"}, "starting_epoch": 1, "ending_epoch": 4, "frequency": 1},
        {"pruner": {"instance_name": "heads"}, "epochs": [1]},
    ],
}  # fmt: skip


def sentences(count: int, generator: torch.Generator) -> list[dict[str, torch.Tensor]]:
    """Make sequences of ten words; the label says whether more of them lie in the upper half of the vocabulary."""
    words = torch.randint(100, (count, 10), generator=generator)
    return [{"input_ids": row, "labels": ((row >= 50).sum() > 5).long()} for row in words]


def main(epochs: int) -> None:
    """Train, thin, save, load."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=16, num_labels=2,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    data = sentences(600, torch.Generator().manual_seed(0))
    example = {"input_ids": torch.stack([part["input_ids"] for part in data[:2]])}
    compression = CompressionCallback(SCHEDULE, example, thin=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=20, learning_rate=3e-3, use_cpu=True,
            report_to=[], disable_tqdm=True, save_strategy="no", logging_strategy="no",
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=data, callbacks=[compression]).train()
        print(compression.recipe)
        plain = save_thinned(model, compression.recipe, f"{folder}/thinned")
        again = load_thinned(f"{folder}/thinned").eval()
        print("from_pretrained loads it:", plain, "| intermediate_size:", again.config.intermediate_size)
        print("equal:", torch.equal(again(**example).logits, model.eval()(**example).logits))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    main(parser.parse_args().epochs)
