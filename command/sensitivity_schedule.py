"""A schedule made of a sensitivity table: each weight as sparse as it may become when it is pruned alone."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from potstill.compression.sensitivity import GROUP_TYPES

HEADER = """\
# Made by --sense {structure}: the sparsity of each weight up to which it costs, pruned alone, at most {loss:g} points
# of Top1 ({dense:.2f} % dense). Together they cost more: begin lower, or fine-tune.
"""


def schedule_text(structure: str, found: Mapping[str, float], dense: float, loss: float) -> str:
    """The schedule as YAML; empty where no weight may be pruned.

    Args:
        structure: `element`, `filter` or `channel`.
        found: sparsity by weight; those of 0 are left out.
        dense: Top1 of the dense network, told in the header.
        loss: the points of Top1 that each weight was allowed to cost, told too.
    """
    levels = {name: level for name, level in found.items() if level > 0}
    if not levels:
        return ""
    pruners: dict[str, dict[str, object]]
    if structure == "element":
        pruners = {"elements": {"class": "SparsityLevelParameterPruner", "levels": levels}}
    else:
        pruners = {f"{structure}s_{level:g}": _ranked(structure, level, levels) for level in sorted({*levels.values()})}
    policies = [{"pruner": {"instance_name": name}, "epochs": [0]} for name in pruners]
    body = yaml.safe_dump({"pruners": pruners, "policies": policies}, sort_keys=False, width=200)
    return HEADER.format(structure=structure, dense=dense, loss=loss) + body


def _ranked(structure: str, level: float, levels: Mapping[str, float]) -> dict[str, object]:
    return {
        "class": "L1RankedStructureParameterPruner",
        "desired_sparsity": level,
        "group_type": GROUP_TYPES[structure],
        "weights": [name for name, theirs in levels.items() if theirs == level],
    }
