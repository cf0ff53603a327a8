"""The Hugging Face Trainer: killed and resumed equals never killed; thinned models beside `save_pretrained`."""

import contextlib
import json
import os
import resource
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from potstill.integrations.transformers import CompressionCallback, load_thinned, save_thinned
from potstill.thinning import ThinningError, thin

pytestmark = pytest.mark.filterwarnings("ignore")
GENERATOR = torch.Generator().manual_seed(0)
DATA = [
    {"input_ids": torch.randint(50, (8,), generator=GENERATOR), "labels": torch.randint(3, (), generator=GENERATOR)}
    for _ in range(40)
]
EXAMPLE = {"input_ids": torch.stack([example["input_ids"] for example in DATA[:2]])}
UNITS = "bert.encoder.layer.*.intermediate.dense.weight"
AGP = {
    "pruners": {
        "agp": {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.8, "weights": [UNITS]}
    },
    "policies": [
        {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
    ],
}
SPLICING = {
    "pruners": {
        "splicing": {
            "class": "SplicingPruner", "sensitivities": {UNITS: 0.8}, "low_thresh_mult": 0.9, "hi_thresh_mult": 1.1
        },
    },
    "policies": [
        {"pruner": {"instance_name": "splicing"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
    ],
}  # fmt: skip
GATES = {
    "regularizers": {"gates": {"class": "L0Regularizer", "weights": [UNITS], "target_sparsity": 0.1}},
    "policies": [{"regularizer": {"instance_name": "gates"}, "starting_epoch": 0, "ending_epoch": 2}],
}


def thinned_in_training(weights):
    pruner = {"class": "L1RankedStructureParameterPruner", "desired_sparsity": 0.5, "group_type": "Filters"}
    return {
        "pruners": {"units": {**pruner, "weights": weights}},
        "extensions": {"thin": {"class": "Thinner"}},
        "policies": [
            {"pruner": {"instance_name": "units"}, "epochs": [0]},
            {"extension": {"instance_name": "thin"}, "epochs": [1]},
        ],
    }


def bert():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    return BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=16, num_labels=3, **sizes))


class Kill(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise InterruptedError


def train(schedule, folder, resume=None, kill=None, **options):
    round_to, others, metrics = options.pop("round_to", 1), options.pop("others", []), options.pop("metrics", None)
    callback = CompressionCallback(schedule, EXAMPLE, thin=True, round_to=round_to)
    defaults = {
        "save_strategy": "epoch", "num_train_epochs": 3, "save_total_limit": 2, "learning_rate": 1e-2,
        "per_device_train_batch_size": 8,
    }  # fmt: skip
    arguments = TrainingArguments(
        str(folder), use_cpu=True, report_to=[], disable_tqdm=True, logging_steps=5, **{**defaults, **options}
    )
    model = bert()
    callbacks = [callback, *others] + ([Kill(kill)] if kill else [])
    trainer = Trainer(
        model, arguments, train_dataset=DATA, eval_dataset=DATA[:8], callbacks=callbacks, compute_metrics=metrics
    )
    with contextlib.suppress(InterruptedError):
        trainer.train(resume_from_checkpoint=resume)
    return model, callback, trainer


def same(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == known and torch.equal(a, b) for (name, a), (known, b) in pairs)


CASES = {"agp": AGP, "splicing": SPLICING, "gates": GATES, "thinning": thinned_in_training([UNITS])}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
@pytest.mark.parametrize("options", [{}, {"save_strategy": "steps", "save_steps": 3}], ids=["epochs", "steps"])
def test_killed_and_resumed_equals_uninterrupted(config, options, tmp_path):
    whole, callback, _ = train(config, tmp_path / "whole", **options)
    train(config, tmp_path / "cut", kill=8, **options)
    resumed, again, _ = train(config, tmp_path / "cut", resume=True, **options)
    assert same(whole, resumed)
    assert callback.recipe.parameters == again.recipe.parameters


def test_accumulated_gradients_count_as_one_step(tmp_path):
    model, callback, trainer = train(AGP, tmp_path, gradient_accumulation_steps=2)
    assert repr(callback).startswith("CompressionCallback with CompressionScheduler of ")
    assert trainer.state.global_step == 9
    weight = model.bert.encoder.layer[0].intermediate.dense.weight
    assert int((weight == 0).sum()) == int(0.8 * 48 * 32)


def test_terms_are_in_the_log_history(tmp_path):
    _, _, trainer = train(GATES, tmp_path)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert {"compression/L0Regularizer_loss", "compression/gates.expected_sparsity"} <= logged[0].keys()


def test_a_checkpoint_elsewhere_is_asked_for(tmp_path):
    train(AGP, tmp_path / "first", kill=8)
    with pytest.raises(ValueError, match=r"compression.pt is not there.*CompressionCallback\(checkpoint="):
        train(AGP, tmp_path / "second", resume=str(tmp_path / "first" / "checkpoint-5"))


def test_learning_rates_of_the_schedule_are_refused(tmp_path):
    rates = {
        **AGP,
        "lr_schedulers": {"steps": {"class": "StepLR", "step_size": 1}},
        "policies": [
            *AGP["policies"],
            {"lr_scheduler": {"instance_name": "steps"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
        ],
    }
    with pytest.raises(ValueError, match="lr_scheduler_type in TrainingArguments"):
        train(rates, tmp_path)


def test_new_biases_in_mid_training_are_refused(tmp_path):
    """The Trainer would resume without them."""
    config = thinned_in_training([UNITS])
    config["extensions"]["thin"]["add_bias"] = True
    with pytest.raises(ValueError, match=r"cannot resume with a bias that is new.* CompressionCallback\(thin=True\)"):
        train(config, tmp_path)


def test_thinning_at_the_end_takes_its_options(tmp_path):
    """48 units less 0.55 of them are 22; up to a multiple of 8 that is 24."""
    config = thinned_in_training([UNITS])
    config["pruners"]["units"]["desired_sparsity"] = 0.55
    del config["extensions"], config["policies"][1]
    model, _, _ = train(config, tmp_path, round_to=8, num_train_epochs=1)
    assert model.bert.encoder.layer[0].intermediate.dense.out_features == 24


def pruned(*layers, units=16):
    model = bert().eval()
    for layer in layers:
        part = model.bert.encoder.layer[layer]
        part.output.dense.weight.data[:, :units] = 0
    return model, thin(model, EXAMPLE)


def test_layers_that_agree_come_back_through_from_pretrained(tmp_path):
    model, recipe = pruned(0, 1)
    assert save_thinned(model, recipe, tmp_path) is True
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.intermediate_size == 32
    assert torch.equal(loaded.eval()(**EXAMPLE).logits, model(**EXAMPLE).logits)
    assert torch.equal(load_thinned(tmp_path).eval()(**EXAMPLE).logits, model(**EXAMPLE).logits)
    assert model.config.intermediate_size == 48  # the user's object stays


def test_heads_come_back_through_from_pretrained(tmp_path):
    """Two heads of 8 have the shapes of four heads of 4, which compute something else."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = LlamaConfig(vocab_size=50, num_key_value_heads=2, max_position_embeddings=16, **sizes)
    model = LlamaForCausalLM(config).eval()
    for layer in model.model.layers:
        layer.self_attn.v_proj.weight.data[:8] = 0
    assert save_thinned(model, thin(model, {**EXAMPLE, "use_cache": False}), tmp_path) is True
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    found = loaded.config
    assert (found.num_attention_heads, found.num_key_value_heads, found.head_dim) == (2, 1, 8)
    assert torch.equal(loaded(**EXAMPLE).logits, model(**EXAMPLE).logits)


def test_evaluation_sees_the_network_of_its_epoch(tmp_path):
    """AGP from 0.1 to 0.8 over three epochs: 0.8 - 0.7 (1 - t / 2)^3."""
    zeros = []

    class Look(TrainerCallback):
        def on_evaluate(self, args, state, control, **kwargs):
            zeros.append(int((kwargs["model"].bert.encoder.layer[0].intermediate.dense.weight == 0).sum()))

    train(AGP, tmp_path, others=[Look()], eval_strategy="epoch")
    assert zeros == [int((0.8 - 0.7 * (1 - epoch / 2) ** 3) * 48 * 32 + 1e-9) for epoch in range(3)]


def test_layers_that_differ_come_back_through_load_thinned(tmp_path):
    model, recipe = pruned(0)
    assert save_thinned(model, recipe, tmp_path) is False
    assert torch.equal(load_thinned(tmp_path)(**EXAMPLE).logits, model(**EXAMPLE).logits)
    with pytest.raises(OSError, match=r"call potstill.integrations.transformers.load_thinned"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_folders_that_hold_none_are_one_kind_of_error(tmp_path):
    with pytest.raises(ThinningError, match="holds no thinned model"):
        load_thinned(tmp_path)
    model, recipe = pruned(0)
    save_thinned(model, recipe, tmp_path)
    (tmp_path / "thinned.safetensors").write_bytes(b"no weights")
    with pytest.raises(ThinningError, match="holds no thinned model"):
        load_thinned(tmp_path)


def changed(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("layers", [(0,), (0, 1)], ids=["by its recipe", "by its config"])
@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"hidden_size": 2**16, "intermediate_size": 2**16, "num_attention_heads": 4}, "a larger network than"),
        ({"num_hidden_layers": 10**6}, "a larger network than"),
        ({"vocab_size": 10**400}, "a number of 1329 bits"),
        ({"architectures": ["Trainer"]}, "names no model"),
        ({"architectures": 3}, "holds no thinned model"),
        ({"model_type": "timm_wrapper"}, "does not build here"),
    ],
)
def test_what_a_strangers_config_describes_is_bounded(tmp_path, layers, fields, match):
    """Nothing is allocated before the weights in the folder explain it."""
    save_thinned(*pruned(*layers), tmp_path)
    changed(tmp_path, **fields)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ThinningError, match=match) as caught:
        load_thinned(tmp_path)
    assert "\n" not in str(caught.value) and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


def test_a_config_names_no_kernels_of_a_hub(tmp_path):
    model, recipe = pruned(0)
    save_thinned(model, recipe, tmp_path)
    changed(tmp_path, attn_implementation="a/b", auto_map={"AutoConfig": "x.Y"}, quantization_config={"a": 1})
    assert torch.equal(load_thinned(tmp_path)(**EXAMPLE).logits, model(**EXAMPLE).logits)


@pytest.mark.parametrize("layers", [(0,), (0, 1)])
def test_links_under_the_names_of_its_files_are_replaced(tmp_path, layers):
    folder, victim = tmp_path / "model", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("precious")
    for name in ("config.json", "recipe.json", "model.safetensors", "thinned.safetensors",
                 "model.safetensors.index.json"):  # fmt: skip
        (folder / name).symlink_to(victim)
    model, recipe = pruned(*layers)
    save_thinned(model, recipe, folder)
    assert victim.read_text() == "precious" and not list(folder.glob("*.part"))
    assert torch.equal(load_thinned(folder)(**EXAMPLE).logits, model(**EXAMPLE).logits)


def test_a_pipe_is_not_waited_for(tmp_path):
    save_thinned(*pruned(0), tmp_path)
    for name in ("thinned.safetensors", "recipe.json", "config.json"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        with pytest.raises(ThinningError, match="holds no thinned model"):
            load_thinned(tmp_path)


class Falling:
    """Scores that fall: the first epoch is the best."""

    def __init__(self):
        self.last = 0

    def __call__(self, _):
        self.last -= 1
        return {"score": self.last}


BEST = {
    "eval_strategy": "epoch",
    "load_best_model_at_end": True,
    "metric_for_best_model": "score",
    "num_train_epochs": 3,
}


def test_the_best_model_comes_with_its_masks(tmp_path, caplog):
    """Otherwise its weights are those of an epoch in which less was pruned, and the masks another's."""
    ramp = {"class": "L1RankedStructureParameterPruner_AGP", "group_type": "Coupled"}
    config = {
        "pruners": {"units": {**ramp, "initial_sparsity": 0.25, "final_sparsity": 0.75, "weights": [UNITS]}},
        "policies": [{"pruner": {"instance_name": "units"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}],
    }
    model, callback, _ = train(config, tmp_path, metrics=Falling(), **BEST)
    assert "the network is that of" in caplog.text
    assert model.bert.encoder.layer[0].intermediate.dense.weight.shape == (36, 32)  # a quarter, as in epoch 0
    assert not bool((model.bert.encoder.layer[0].intermediate.dense.weight == 0).any())
    assert callback.recipe.parameters[1] == sum(parameter.numel() for parameter in model.parameters())


class Forget(TrainerCallback):
    """Loses the schedule's state of the best checkpoint."""

    def on_epoch_end(self, args, state, control, **_):
        if state.best_model_checkpoint:
            (Path(state.best_model_checkpoint) / "compression.pt").unlink(missing_ok=True)


def test_the_best_model_without_its_masks_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"compression\.pt is not there: load_best_model_at_end"):
        train(AGP, tmp_path, metrics=Falling(), others=[Forget()], **BEST)


def test_the_best_model_of_before_a_thinning_in_training_is_refused(tmp_path):
    with pytest.raises(ValueError, match="load_best_model_at_end"):
        train(thinned_in_training([UNITS]), tmp_path, metrics=Falling(), **BEST)
