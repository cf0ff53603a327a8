"""The benchmark of families: its results are continued, its page says all outcomes; three families run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from potstill.thinning import thin, trace

SCRIPT = Path(__file__).parents[2] / "benchmarks/coverage.py"


@pytest.fixture
def coverage(monkeypatch):
    spec = importlib.util.spec_from_file_location("coverage_of_families", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec.loader.exec_module(module)
    return module


def test_results_are_read_as_they_were_written_and_shown(coverage, tmp_path):
    rows = [
        coverage.Row("timm", "one", "test_one", "exact", 100, 60, 0.5, 1.0, 1e-7, 0.25, 0.5, "aten.relu: why"),
        coverage.Row("timm", "three", "test_three", "exact", 9, 9, 1.0, 1.0, reason="does not train: why", trains="no"),
        coverage.Row("timm", "two", outcome="refused", reason="no, it says | no"),
    ]
    for row in rows:
        coverage.append(tmp_path / "rows.csv", row)
    assert coverage.known(tmp_path / "rows.csv") == rows
    text = coverage.page(rows)
    assert "3 families: 2 exact, 1 refused." in text
    assert "| one | test_one | exact | 100 | 60 | 50% | 100% | 1e-07" in text
    assert "- three: does not train: why" in text.split("No training step afterwards")[1]
    assert "- two: no, it says / no" in text and "- one: aten.relu: why" in text


def test_results_of_fewer_columns_are_read_and_get_the_others(coverage, tmp_path):
    path = tmp_path / "rows.csv"
    coverage.append(path, coverage.Row("timm", "one", outcome="exact", reason="why"))
    lines = [line.rpartition(",")[0] for line in path.read_text().splitlines()]  # without `trains`
    path.write_text("\n".join(lines) + "\n")
    assert coverage.tidied(path) == [coverage.Row("timm", "one", outcome="exact", reason="why")]
    coverage.append(path, coverage.Row("timm", "two", outcome="exact", trains="yes"))
    assert [row.trains for row in coverage.known(path)] == ["", "yes"]


class Refuses(nn.Linear):
    def forward(self, x):
        if self.training and self.in_features < 4:
            raise RuntimeError("too few")
        return super().forward(x)


@pytest.mark.parametrize(("width", "says"), [(4, ""), (3, "RuntimeError: too few")])
def test_a_training_step_is_tried_on_a_copy(coverage, width, says):
    training = importlib.import_module("families.training")
    model = nn.Sequential(Refuses(width, 2), nn.BatchNorm1d(2)).eval()
    assert training.training_fails(model, torch.randn(1, width)) == says
    assert not model.training and model[1].num_batches_tracked == 0


def test_the_last_row_of_a_family_counts(coverage, tmp_path):
    for outcome in ("fails", "exact"):
        coverage.append(tmp_path / "rows.csv", coverage.Row("timm", "one", outcome=outcome))
    assert [row.outcome for row in coverage.known(tmp_path / "rows.csv")] == ["exact"]


def test_what_went_is_counted_in_channels(coverage):
    model, x = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 2)), torch.randn(3, 4)
    graph = trace(model, x)
    with torch.no_grad():
        model[0].weight[[1, 5, 6]] = model[0].bias[[1, 5, 6]] = 0
    assert coverage.gone(graph, thin(model, x)) == 3


def test_a_process_ends_with_its_time_and_its_row_says_so(coverage, monkeypatch):
    monkeypatch.setattr(coverage, "measured", lambda *_: [0 for _ in iter(int, 1)])
    row = coverage.in_a_process("timm", "endless", 1)
    assert (row.outcome, row.reason) == ("too slow", "more than 1 s of the processor")


def test_the_smallest_member_is_known_by_its_name(coverage):
    of_timm = pytest.importorskip("families.of_timm")
    names = [
        "efficientformerv2_l",
        "efficientformerv2_s0",
        "vit_base_patch16",
        "test_vit",
        "regnetx_002",
        "regnety_040",
    ]
    assert sorted(names, key=of_timm.promise)[0] == "test_vit"
    assert min(names[:2], key=of_timm.promise) == "efficientformerv2_s0"
    assert min(names[4:], key=of_timm.promise) == "regnetx_002"


@pytest.fixture
def sizes(coverage):
    pytest.importorskip("transformers")
    return importlib.import_module("families.sizes")


def plain(family):
    return importlib.import_module("transformers").AutoConfig.for_model(family)


def test_configurations_become_small_with_all_their_parts(sizes):
    changes = sizes.changes_of(plain("clip"), sizes.named)
    assert changes["text_config"]["num_hidden_layers"] == changes["vision_config"]["num_hidden_layers"] == 2
    assert "patch_size" not in sizes.without(changes, ("patch_size",))["vision_config"]
    heads = {"model_type": "text", "num_heads": 2}
    changed = sizes.instead({"num_heads": 3, "text_config": heads}, "num_heads", 4)
    assert changed == {"num_heads": 4, "text_config": {"model_type": "text", "num_heads": 4}}


def test_sizes_in_proportion_match_as_before(sizes):
    assert sizes.divided([3, 64, 1024], 16) == [3, 4, 64] and sizes.divided(48, 32) == 48
    changes = sizes.in_proportion(plain("mimi"), 16)
    assert (changes["hidden_size"], changes["upsample_groups"], changes["num_hidden_layers"]) == (32, 32, 2)


def test_lists_with_an_entry_a_layer_keep_a_layer_of_each_kind(sizes):
    changes = sizes.changes_of(plain("gemma3n_text"), sizes.named)
    assert changes["layer_types"] == ["sliding_attention", "full_attention"]
    assert len(changes["intermediate_size"]) == len(changes["activation_sparsity_pattern"]) == 2


def test_what_a_configuration_works_out_is_not_set(sizes):
    changes = sizes.changes_of(plain("funnel"), sizes.named)
    assert "num_hidden_layers" not in changes and changes["block_sizes"] == [1, 1, 1]


def test_parts_of_a_head_that_turn_are_tried_where_there_are_any(sizes):
    tried = [str(changes) for changes in sizes.variants(plain("qwen2_vl"))]
    assert all(any(f"'mrope_section': {section}" in one for one in tried) for section in sizes.SECTIONS)
    assert not any("rope" in str(changes) for changes in sizes.variants(plain("resnet")))


def test_widths_that_several_parts_list_get_smaller_together_first(sizes):
    (first, *_) = sizes.variants(plain("d_fine"))
    assert first["backbone_config"]["stage_out_channels"][1:] == first["encoder_in_channels"] == [64, 128, 256]
    assert (first["d_model"], first["num_queries"]) == (32, 10)


def test_large_images_get_smaller_with_the_maps_that_are_made_of_them(sizes):
    changes = sizes.in_proportion(plain("sam3_vision_model"), 8)
    assert changes["backbone_feature_sizes"] == [[36, 36], [18, 18], [9, 9]]
    assert sizes.in_proportion(plain("sam3_vit_model"), 8)["image_size"] == 126


def test_inputs_that_cannot_be_left_out_are_given_and_no_kind_comes_twice(sizes):
    inputs_by_kind = importlib.import_module("families.inputs")

    class Needs(nn.Module):
        config = plain("resnet")

        def forward(self, pixel_values, tasks_input_ids, mask=None):
            pass

    image = torch.zeros(1, 3, 4, 4)
    kinds = [{"pixel_values": image}, {"mask": image}, {"pixel_values": image + 1, "other": image}]
    (found,) = inputs_by_kind.distinct(Needs(), iter(kinds))
    assert set(found) == {"pixel_values", "tasks_input_ids"}


def test_texts_get_the_places_that_a_model_asks_for(sizes):
    inputs_by_kind = importlib.import_module("families.inputs")

    class Asks(nn.Module):
        def forward(self, input_ids, attention_mask):
            places = int((input_ids == sizes.SIZES_BY_NAME["image_token_id"]).sum())
            if places != 8:
                raise ValueError(f"Image features and image tokens do not match, tokens: {places}, features: 8")

    texts = torch.ones(2, 3, dtype=torch.long)
    found = inputs_by_kind.run_with(Asks(), {"input_ids": texts, "attention_mask": texts})
    assert found["input_ids"].tolist() == [[95] * 4 + [1] * 3] * 2 and found["attention_mask"].shape == (2, 7)


@pytest.mark.slow
def test_three_families(coverage):
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    assert coverage.main(["--short"]) == 0


def test_a_model_whose_statistics_overflow_gets_larger_images(coverage):
    of_timm = pytest.importorskip("families.of_timm")
    _, _, images = of_timm.model_of("efficientvit_msra")
    assert images.shape[-1] > min(of_timm.SIDES)
