"""Thins one small member of every family of timm and transformers, and writes what came of it as a table.

    python benchmarks/coverage.py                     all families that are not in the results yet
    python benchmarks/coverage.py --only vit llama    some families
    python benchmarks/coverage.py --short             three, in this process: what CI runs
    python benchmarks/coverage.py --write             only write docs/coverage.md from the results

Each model runs in a process of its own, on one thread, with a time limit; results go to docs/results/coverage.csv, one
line a model, and a second call goes on where the first one ended. Of every class of removable channels 30 % are zeroed;
`thin` removes them and compares the outputs.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs/results/coverage.csv", ROOT / "docs/coverage.md"
LIMIT = 240.0
"""Seconds a model may take."""
SHORT = (("timm", "resnet"), ("timm", "vision_transformer"), ("transformers", "llama"))
SMALL = ["test", "atto", "femto", "pico", "nano", "xxtiny", "tiny", "mini", "xxs", "xs", "micro", "small"]


@dataclass
class Row:
    """What came of one model. `outcome`: exact, refused, fails (the model itself does not run so) or too slow."""

    library: str
    family: str
    model: str = ""
    outcome: str = ""
    parameters: int = 0
    left: int = 0
    removable: float = 0.0
    went: float = 0.0
    difference: float = 0.0
    trace: float = 0.0
    thin: float = 0.0
    reason: str = ""


# ---------- the families


def families() -> Iterator[tuple[str, str]]:
    """Yield library and name of every family that is installed, of both libraries in turn."""
    found: list[list[tuple[str, str]]] = []
    if importlib.util.find_spec("timm"):
        import timm

        found.append([("timm", name) for name in sorted(timm.list_modules()) if timm.list_models(module=name)])
    if importlib.util.find_spec("transformers"):
        from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

        found.append([("transformers", name) for name in sorted(MODEL_MAPPING_NAMES)])
    yield from (one for pair in zip_longest(*found) for one in pair if one is not None)


def of_timm(family: str) -> tuple[str, Any, Any]:
    """Return the member of a family whose name promises the least, and an image."""
    import timm
    import torch

    def size(name: str) -> tuple[int, int]:
        return next((i for i, word in enumerate(SMALL) if word in name), len(SMALL)), len(name)

    name = min(timm.list_models(module=family), key=size)
    model = timm.create_model(name, num_classes=10).eval()
    return name, model, torch.randn(2, *model.default_cfg["input_size"])


SIZES = {
    ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "word_embed_proj_dim"): 32,
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"): 2,
    ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"): 4,
    ("intermediate_size", "n_inner", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim"): 48,
    ("num_key_value_heads",): 2,
    ("head_dim", "d_kv", "rotary_dim", "kv_channels"): 8,
    ("vocab_size",): 100,
    ("max_position_embeddings", "n_positions"): 64,
    ("num_local_experts", "num_experts", "n_routed_experts"): 4,
    ("moe_intermediate_size", "shared_expert_intermediate_size"): 16,
    ("image_size",): 32,
    ("patch_size",): 8,
}


def of_transformers(family: str) -> tuple[str, Any, Any]:
    """Return a model of a family in a small size, and its inputs; what its configuration refuses stays as it is."""
    import torch
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[family]
    plain = kind()
    wanted = {name: size for names, size in SIZES.items() for name in names if type(getattr(plain, name, None)) is int}
    special = {name: 0 for name in ("pad_token_id", "bos_token_id", "eos_token_id") if getattr(plain, name, None)}
    model = AutoModel.from_config(kind(**wanted, **special)).eval()
    name = model.main_input_name
    if name == "input_ids":
        inputs = {name: torch.randint(3, 90, (2, 12)), "attention_mask": torch.ones(2, 12, dtype=torch.long)}
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = torch.randint(3, 90, (2, 6))
        return type(model).__name__, model, inputs
    if name == "pixel_values":
        side = model.config.image_size if isinstance(getattr(model.config, "image_size", None), int) else 64
        return type(model).__name__, model, {name: torch.randn(2, getattr(model.config, "num_channels", 3), side, side)}
    raise NotImplementedError(f"inputs of the kind {name}")


# ---------- one model


def measured(library: str, family: str) -> Row:
    """Make a model, trace it, zero channels, thin it."""
    import torch

    from potstill.thinning import ThinningError, thin, trace
    from potstill.thinning.testing import make_sensitive, zero_channels

    torch.manual_seed(0)
    row = Row(library, family)
    try:
        row.model, model, inputs = (of_timm if library == "timm" else of_transformers)(family)
        make_sensitive(model, inputs)
    except Exception as error:
        row.outcome, row.reason = "fails", f"{type(error).__name__}: {error}".splitlines()[0][:160]
        return row
    row.parameters = sum(parameter.numel() for parameter in model.parameters())
    start = time.perf_counter()
    try:
        graph = trace(model, inputs)
        row.trace = time.perf_counter() - start
        row.removable, row.reason = shares(graph)
        zeroed, start = zero_channels(model, graph), time.perf_counter()
        recipe = thin(model, inputs)
    except ThinningError as error:
        row.outcome, row.reason = "refused", str(error).splitlines()[0][:200]
        return row
    row.thin, row.left, row.outcome = time.perf_counter() - start, recipe.parameters[1], "exact"
    row.difference = recipe.max_relative_difference
    rest = trace(model, inputs)
    row.went = 1.0 if not zeroed else (graph.count - rest.count) / zeroed
    return row


def shares(graph: Any) -> tuple[float, str]:
    """Return the share of channels that layers make and that can be removed, and the main reason why others cannot."""
    status: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for group in graph.classes():
        if any(role == "out" for _, _, role in group.uses) and group.reason != "an output of the model":
            status[group.status] += group.size
            reasons[group.reason.partition(" in ")[0] + group.reason.partition(")")[2]] += group.size
    reasons.pop("", None)
    return status["removable"] / max(1, status.total()), next((why for why, _ in reasons.most_common(1)), "")[:160]


def in_a_process(library: str, family: str, limit: float) -> Row:
    """Measure in a process of its own that ends with the time limit."""
    command = [sys.executable, __file__, "--one", library, family]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit, env=environment)
    except subprocess.TimeoutExpired:
        return Row(library, family, outcome="too slow", reason=f"more than {limit:.0f} s")
    lines = [line for line in run.stdout.splitlines() if line.startswith("row,")]
    if not lines:
        last = (run.stderr.strip().splitlines() or [""])[-1][:160]
        return Row(library, family, outcome="fails", reason=f"exit status {run.returncode}: {last}")
    return read(next(csv.DictReader(lines, ["row", *(field.name for field in fields(Row))])))


# ---------- results


def read(entry: dict[str, str]) -> Row:
    """Return a row from its text."""
    kinds = {"parameters": int, "left": int, "removable": float, "went": float}
    kinds |= {"difference": float, "trace": float, "thin": float}
    return Row(**{field.name: kinds.get(field.name, str)(entry[field.name]) for field in fields(Row)})


def known(path: Path) -> list[Row]:
    """Return the rows of earlier calls."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [read(entry) for entry in csv.DictReader(file)]


def append(path: Path, row: Row) -> None:
    """Write a row behind the others."""
    fresh = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        if fresh:
            writer.writeheader()
        writer.writerow(rounded(row))


def rounded(row: Row) -> dict[str, Any]:
    """Return a row as text of few digits."""
    return {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in asdict(row).items()}


HEAD = """# Coverage

One small member of each family of timm and transformers, thinned by `benchmarks/coverage.py`: of every class of
removable channels 30 % are zeroed, `thin` removes them and compares the outputs. Times are of one thread of a busy
machine. Families that are not here were not tried; the script goes on with those.

- *removable*: of the channels that layers make (but the model's outputs), the share that can be removed exactly;
- *went*: of the channels that were zeroed, the share that went;
- *difference*: the largest difference of an output by the largest output, in single precision;
- *main reason*: why most of the others stay.
"""


def page(rows: list[Row]) -> str:
    """Return the page."""
    lines = [HEAD]
    for library in ("timm", "transformers"):
        mine = [row for row in rows if row.library == library]
        counts = Counter(row.outcome for row in mine)
        said = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
        lines += [f"## {library}", "", f"{len(mine)} families: {said or 'none ran'}.", ""]
        lines += ["| family | model | outcome | parameters | left | removable | went | difference | trace s | thin s |"]
        lines += ["| --- | --- | --- | --: | --: | --: | --: | --: | --: | --: |"]
        for row in (row for row in mine if row.outcome == "exact"):
            numbers = f"{row.parameters:,} | {row.left:,} | {row.removable:.0%} | {row.went:.0%} | {row.difference:.0e}"
            lines.append(f"| {row.family} | {row.model} | exact | {numbers} | {row.trace:.1f} | {row.thin:.1f} |")
        lines += ["", *list_of(mine, "exact", "What keeps most of the others, where less than 60 % are removable"), ""]
        for outcome, title in (("refused", "Refused"), ("too slow", "Too slow"), ("fails", "Not built or not run")):
            lines += [*list_of(mine, outcome, title), ""]
    text = "\n".join(lines).rstrip() + "\n"
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text


def list_of(rows: list[Row], outcome: str, title: str) -> list[str]:
    """Return rows of one outcome with their reasons as a list."""
    chosen = [row for row in rows if row.outcome == outcome and (outcome != "exact" or row.removable < 0.6)]
    items = [f"- {row.family}: {row.reason.replace('|', '/')[:100]}" for row in chosen]
    return [f"{title}:", "", *items] if items else []


def main(arguments: list[str]) -> int:
    """Run the families that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="names of families")
    parser.add_argument("--short", action="store_true", help="three models in this process")
    parser.add_argument("--write", action="store_true", help="only write the page")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds a model")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    if options.one:
        csv.DictWriter(sys.stdout, ["row", *(f.name for f in fields(Row))]).writerow(
            {"row": "row", **rounded(measured(*options.one))}
        )
        return 0
    if options.short:
        rows = [measured(*one) for one in SHORT if importlib.util.find_spec(one[0])]
        print("\n".join(f"{row.family}: {row.outcome}, {row.removable:.0%} removable {row.reason}" for row in rows))
        return int(any(row.outcome != "exact" or row.went < 1 for row in rows))
    done = {(row.library, row.family) for row in known(RESULTS)}
    for library, family in families() if not options.write else ():
        if (options.only and family not in options.only) or (library, family) in done:
            continue
        row = in_a_process(library, family, options.limit)
        append(RESULTS, row)
        print(f"{library} {family} {row.model}: {row.outcome} {row.removable:.0%} {row.reason}", flush=True)
    PAGE.write_text(page(known(RESULTS)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
