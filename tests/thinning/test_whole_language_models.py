"""Whole language models of transformers: what a formula says goes, and the same text comes out, token for token."""

from __future__ import annotations

import math

import pytest
import torch

from potstill.thinning import thin
from potstill.thinning.running.inputs import next_step

transformers = pytest.importorskip("transformers")

HEAD, HIDDEN, UNITS, WORDS = 8, 32, 48, 50
BASE = {
    "vocab_size": WORDS, "hidden_size": HIDDEN, "intermediate_size": UNITS, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
KINDS = {
    "llama": ("Llama", {}),
    "qwen3": ("Qwen3", {"head_dim": HEAD}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "experts_implementation": "eager"}),
}
WORDS_IN = torch.randint(1, WORDS, (2, 5), generator=torch.Generator().manual_seed(0))


def model_of(kind, **changes):
    name, own = KINDS.get(kind, (kind, {}))
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**BASE, **own, **changes})
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def heads(*numbers):
    return [head * HEAD + i for head in numbers for i in range(HEAD)]


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def zeroed(model, dim, at, *endings):
    for name, parameter in model.named_parameters():
        if name.endswith(endings):
            parameter.index_fill_(dim, torch.tensor(at), 0)


def written(model):
    """What it writes, with its cache, in double precision; and the scores of each word."""
    made = model.double().generate(
        WORDS_IN, max_new_tokens=8, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    return made.sequences, torch.stack(made.logits)


def same_text(model, gone):
    """Thin in single precision; text and scores stay, and so many parameters go."""
    before, words, scores = size(model), *written(model)
    thin(model.float(), {"input_ids": WORDS_IN})
    again, others = written(model)
    assert torch.equal(again, words)
    torch.testing.assert_close(others, scores, rtol=0, atol=1e-6 * float(scores.abs().max()))
    assert before - size(model) == gone


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_of_queries_units_and_the_stream(kind):
    model, experts = model_of(kind), 4 if kind == "mixtral" else 1
    zeroed(model, 0, heads(2, 3), "q_proj.weight")
    zeroed(model, 1, heads(2, 3), "o_proj.weight")
    zeroed(model, 0, heads(1), "k_proj.weight", "v_proj.weight")
    units, stream = [3, 7, 11], [2, 9, 20, 30]
    if experts > 1:  # both halves of (experts, 2 units, hidden), the columns of (experts, hidden, units)
        zeroed(model, 1, [*units, *(UNITS + unit for unit in units)], "gate_up_proj")
        zeroed(model, 2, units, "down_proj")
        zeroed(model, 1, stream, "down_proj")
    else:
        zeroed(model, 0, units, "gate_proj.weight", "up_proj.weight")
        zeroed(model, 1, units, "down_proj.weight")
        zeroed(model, 0, stream, "down_proj.weight")
    zeroed(model, 0, stream, "o_proj.weight")
    zeroed(model, 1, stream, "embed_tokens.weight")
    # one channel of the stream: words in and out, queries, keys, values and outputs, units, three norms, the router
    channel = 2 * WORDS + 2 * (4 + 2) * HEAD + 3 * UNITS * experts + 3 + (experts if experts > 1 else 0)
    channels_left = HIDDEN - len(stream)
    group = 2 * (2 + 1) * HEAD * channels_left
    same_text(model, len(stream) * channel + group + len(units) * 3 * channels_left * experts)


def test_single_queries_of_each_key():
    model = model_of("llama")
    zeroed(model, 1, heads(1, 2), "o_proj.weight")
    same_text(model, 2 * 2 * HEAD * HIDDEN)


FUSED = {  # configuration; ending of the fused weight, rows of a head in it, ending of what reads the heads
    "GPTNeoX": ({"rotary_pct": 1.0}, "query_key_value", range(24, 48), "attention.dense.weight"),
    "Phi": ({"partial_rotary_factor": 0.5, "num_key_value_heads": 4}, None, None, "self_attn.dense.weight"),
    "Olmo2": ({"num_key_value_heads": 4}, None, None, "o_proj.weight"),
    "Gemma": ({"num_key_value_heads": 4, "head_dim": HEAD}, None, None, "o_proj.weight"),
    "Falcon": ({"multi_query": True, "new_decoder_architecture": False, "alibi": False}, "query_key_value",
               range(8, 16), "self_attention.dense.weight"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FUSED)
def test_a_head_of_other_layouts(kind):
    changes, fused, rows, reads = FUSED[kind]
    model = model_of(kind, **changes)
    made = [f"{fused}.{part}" for part in ("weight", "bias")]
    separate = [f"{part}_proj.{leaf}" for part in "qkv" for leaf in ("weight", "bias")]
    zeroed(model, 0, list(rows or heads(1)), *(made if fused else separate))
    zeroed(model, 1, heads(1), reads)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    ends = tuple(made if fused else [*separate, *(["q_norm.weight", "k_norm.weight"] if kind == "Olmo2" else [])])
    gone = sum(len(rows or heads(1)) * math.prod(s[1:]) for name, s in shapes.items() if name.endswith(ends))
    same_text(model, gone + sum(HEAD * shape[0] for name, shape in shapes.items() if name.endswith(reads)))


def test_a_group_of_queries_that_lies_beside_its_key_and_value():
    changes = {"new_decoder_architecture": True, "num_kv_heads": 2, "multi_query": False, "alibi": False}
    model = model_of("Falcon", **changes)
    zeroed(model, 0, heads(4, 5, 6, 7), "query_key_value.weight")
    zeroed(model, 1, heads(2, 3), "self_attention.dense.weight")
    same_text(model, (4 + 2) * HEAD * HIDDEN)


def test_heads_whose_number_the_code_reads_from_the_configuration():
    model = model_of("Phi3")
    zeroed(model, 0, heads(2, 3, 5, 7), "qkv_proj.weight")  # two queries and their key and value
    zeroed(model, 1, heads(2, 3), "o_proj.weight")
    same_text(model, (4 + 2) * HEAD * HIDDEN)
    assert model.model.layers[0].self_attn.config.num_attention_heads == 2
    assert model.config.num_attention_heads == 4


def test_slopes_of_heads_keep_them_and_are_named():
    config = transformers.BloomConfig(vocab_size=WORDS, hidden_size=HIDDEN, n_layer=1, n_head=4)
    model = transformers.BloomForCausalLM(config).eval()
    zeroed(model, 0, list(range(24, 48)), "query_key_value.weight", "query_key_value.bias")
    zeroed(model, 1, heads(1), "self_attention.dense.weight")
    recipe = thin(model, {"input_ids": WORDS_IN})
    assert recipe.removes_nothing
    assert any("baddbmm" in kept.reason and "fixed size" in kept.reason for kept in recipe.refused)


@pytest.mark.parametrize("returned", ["cache", "past_key_values"])
def test_a_model_goes_on_from_its_cache_by_whatever_name_it_has(returned):
    """The proof's second step: its scores are those of the whole text with the last word once more."""
    model = model_of("llama").double()
    result = model(WORDS_IN, use_cache=True)
    cache = result["past_key_values"]  # which newer versions answer with what they call `cache`
    kind = type("Output", (), {returned: cache})
    onward = next_step(model, WORDS_IN, kind())
    again = torch.cat([WORDS_IN, WORDS_IN[:, -1:]], 1)
    torch.testing.assert_close(model(**onward).logits[:, -1], model(again, use_cache=False).logits[:, -1])
