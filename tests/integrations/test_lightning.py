"""Lightning: training, killed and resumed, equals training that never stopped, bit for bit."""

import contextlib
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pl = pytest.importorskip("lightning.pytorch")

from potstill.compression import CheckpointError  # noqa: E402
from potstill.integrations.lightning import CompressionCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
X = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (40,), generator=torch.Generator().manual_seed(1))
WEIGHTS = ["net.0.weight", "net.3.weight"]


def schedule(section, made, *policies, **more):
    return {section: {"it": made}, **more, "policies": [{section[:-1]: {"instance_name": "it"}, **p} for p in policies]}


AGP = schedule(
    "pruners",
    {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.8, "weights": WEIGHTS},
    {"starting_epoch": 0, "ending_epoch": 4, "frequency": 1},
)
SPLICING = schedule(
    "pruners",
    {
        "class": "SplicingPruner",
        "sensitivities": dict.fromkeys(WEIGHTS, 0.8),
        "low_thresh_mult": 0.9,
        "hi_thresh_mult": 1.1,
    },
    {"starting_epoch": 0, "ending_epoch": 4, "frequency": 1},
)
GATES = schedule(
    "regularizers",
    {"class": "L0Regularizer", "weights": WEIGHTS, "target_sparsity": 0.4},
    {"starting_epoch": 0, "ending_epoch": 3},
)
THINNED = schedule(
    "pruners",
    {
        "class": "L1RankedStructureParameterPruner",
        "desired_sparsity": 0.5,
        "group_type": "Filters",
        "weights": WEIGHTS[:1],
    },
    {"epochs": [0]},
    extensions={"thin": {"class": "Thinner"}},
)
THINNED["policies"].append({"extension": {"instance_name": "thin"}, "epochs": [1]})


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(96, 3),
        )  # fmt: skip
        self.seen = []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.seen.append((self.current_epoch, int((self.net[0].weight == 0).sum())))
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


class Kill(pl.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise InterruptedError


class Logs(pl.Callback):
    def __init__(self):
        self.names = set()

    def on_train_epoch_end(self, trainer, _):
        self.names |= set(trainer.callback_metrics)


def fit(config, folder, kill=None, resume=False, every=None, batches=X, **options):
    module, thinning = options.pop("module", Module)(), options.pop("thinning", {})
    callback = CompressionCallback(config, example_inputs=X[:2], thin=True, **thinning)
    saves = pl.callbacks.ModelCheckpoint(folder, save_last=True, every_n_train_steps=every)
    others = [Kill(kill)] if kill else []
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(batches, Y), batch_size=8)
    trainer = pl.Trainer(
        max_epochs=5, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[callback, saves, Logs(), *others], **options,
    )  # fmt: skip
    with contextlib.suppress(InterruptedError):
        trainer.fit(module, loader, loader, ckpt_path=str(folder / "last.ckpt") if resume else None)
    return module, callback, trainer


def same(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == known and torch.equal(a, b) for (name, a), (known, b) in pairs)


@pytest.mark.parametrize("config", [AGP, SPLICING, GATES, THINNED], ids=["agp", "splicing", "gates", "thinning"])
def test_killed_and_resumed_equals_uninterrupted(config, tmp_path):
    whole, callback, _ = fit(config, tmp_path / "whole")
    fit(config, tmp_path / "cut", kill=13)
    resumed, again, _ = fit(config, tmp_path / "cut", resume=True)
    assert same(whole, resumed)
    assert callback.recipe.parameters == again.recipe.parameters


def test_resumed_within_an_epoch(tmp_path):
    """Lightning begins the data of an epoch again: all batches are the same here, so that it makes no difference."""
    batches, labels = X[:8].repeat(5, 1, 1, 1), Y.clone()
    Y.copy_(labels[:8].repeat(5))
    try:
        whole, _, _ = fit(AGP, tmp_path / "whole", every=3, batches=batches)
        fit(AGP, tmp_path / "cut", kill=13, every=3, batches=batches)
        resumed, _, _ = fit(AGP, tmp_path / "cut", resume=True, every=3, batches=batches)
        assert same(whole, resumed)
    finally:
        Y.copy_(labels)


def test_validation_sees_the_network_of_its_epoch(tmp_path):
    """AGP from 0.1 to 0.8 over four epochs: 0.8 - 0.7 (1 - t / 3)^3."""
    module, callback, _ = fit(AGP, tmp_path, num_sanity_val_steps=0)
    assert repr(callback).startswith("CompressionCallback with CompressionScheduler of ")
    for epoch, zeros in module.seen:
        expected = 0.8 - 0.7 * (1 - min(epoch, 3) / 3) ** 3
        assert zeros == int(expected * 72 + 1e-9)


def test_epochs_without_validation_end_too(tmp_path):
    rare = {"check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}
    whole, _, _ = fit(AGP, tmp_path / "whole", **rare)
    assert [epoch for epoch, _ in whole.seen[::5]] == [1, 3]
    assert same(whole, fit(AGP, tmp_path / "every")[0])
    fit(AGP, tmp_path / "cut", kill=17, **rare)
    assert same(whole, fit(AGP, tmp_path / "cut", resume=True, **rare)[0])


def test_steps_are_the_optimizers_when_gradients_are_accumulated(tmp_path):
    whole, _, trainer = fit(AGP, tmp_path / "whole", accumulate_grad_batches=2)
    assert trainer.global_step == 15  # five minibatches an epoch: 2 + 2 + 1
    assert int((whole.net[0].weight == 0).sum()) == int(0.8 * 72)
    fit(AGP, tmp_path / "cut", kill=8, accumulate_grad_batches=2)
    assert same(fit(AGP, tmp_path / "cut", resume=True, accumulate_grad_batches=2)[0], whole)


def test_terms_and_measures_are_logged_by_name(tmp_path):
    _, _, trainer = fit(GATES, tmp_path)
    names = next(callback for callback in trainer.callbacks if isinstance(callback, Logs)).names
    assert {"compression/L0Regularizer_loss", "compression/it.expected_sparsity"} <= names


def test_clipping_and_mixed_precision_keep_zeros(tmp_path):
    module, _, _ = fit(AGP, tmp_path, gradient_clip_val=0.1, precision="bf16-mixed")
    assert int((module.net[0].weight == 0).sum()) == 57


def test_a_checkpoint_without_the_schedules_state_is_refused(tmp_path):
    module = Module()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    plain = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    saves = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True)
    pl.Trainer(max_epochs=1, callbacks=[saves], **plain).fit(module, loader)
    with pytest.raises(ValueError, match="goes on at step 5, but its checkpoint holds no state of the schedule"):
        fit(AGP, tmp_path, resume=True)


def test_several_optimizers_are_refused(tmp_path):
    class Two(Module):
        def configure_optimizers(self):
            return [torch.optim.SGD(self.net[i].parameters(), 0.1) for i in (0, 3)]

    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[CompressionCallback(AGP)]
    )
    module = Two()
    module.automatic_optimization = False
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    with pytest.raises(ValueError, match="configure_optimizers returns 2"):
        trainer.fit(module, loader)


class WithoutBias(Module):
    """Four filters that compute constants, in front of a layer without a bias."""

    def __init__(self):
        super().__init__()
        self.net[1], self.net[3] = nn.Identity(), nn.Conv2d(8, 6, 3, bias=False)
        with torch.no_grad():
            self.net[0].weight[:4] = 0
            self.net[0].bias.fill_(0.5)


ZEROS = schedule(
    "pruners", {"class": "MagnitudeParameterPruner", "thresholds": {"net.0.weight": 1e-6}}, {"epochs": [0]}
)
NEW_BIAS = {**ZEROS, "extensions": {"thin": {"class": "Thinner", "add_bias": True}}}
NEW_BIAS["policies"] = [*ZEROS["policies"], {"extension": {"instance_name": "thin"}, "epochs": [1]}]


@pytest.mark.parametrize(
    ("options", "filters"), [({}, 8), ({"add_bias": True}, 4), ({"add_bias": True, "round_to": 3}, 6)]
)
def test_thinning_at_the_end_takes_its_options(options, filters, tmp_path):
    module, callback, _ = fit(ZEROS, tmp_path, module=WithoutBias, thinning=options)
    assert len(module.net[0].weight) == filters
    assert callback.recipe.biases == (("net.3.bias",) if options else ())


def test_a_callback_before_training_names_its_schedule():
    assert repr(CompressionCallback("agp.yaml")) == "CompressionCallback of agp.yaml, before training"
    assert repr(CompressionCallback(AGP)) == "CompressionCallback of a schedule, before training"


def test_options_of_thinning_without_thinning_are_refused():
    with pytest.raises(ValueError, match=r"allow_inexact, round_to, add_bias are about .* add thin=True"):
        CompressionCallback(ZEROS, add_bias=True)


def test_a_bias_that_thinning_has_added_is_resumed(tmp_path):
    whole, _, _ = fit(NEW_BIAS, tmp_path / "whole", module=WithoutBias)
    assert whole.net[3].bias is not None
    fit(NEW_BIAS, tmp_path / "cut", kill=13, module=WithoutBias)
    assert same(whole, fit(NEW_BIAS, tmp_path / "cut", resume=True, module=WithoutBias)[0])


def test_the_recipe_is_of_all_thinnings_and_a_checkpoint_of_after_them_is_loaded(tmp_path):
    """By a trainer with the callback; a checkpoint of before does not fit what is left, which is said."""
    module, callback, trainer = fit(THINNED, tmp_path)
    assert callback.recipe.parameters[0] == sum(p.numel() for p in Module().parameters())
    assert callback.recipe.parameters[1] == sum(p.numel() for p in module.parameters())
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    again, other = Module(), CompressionCallback(THINNED, example_inputs=X[:2])
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    another = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[other], max_epochs=6)
    another.validate(again, loader, ckpt_path=tmp_path / "after.ckpt", verbose=False)
    assert same(module, again)
    filters = {**THINNED, "policies": THINNED["policies"][:1]}  # thinned at the end alone
    thinned, _, trainer = fit(filters, tmp_path / "end")
    with pytest.raises(CheckpointError, match="before it was thinned"):
        trainer.validate(thinned, loader, ckpt_path=tmp_path / "end" / "last.ckpt", verbose=False)
