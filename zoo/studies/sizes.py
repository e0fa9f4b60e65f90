"""Print the parameters of every size of DreamerV3 beside the reference.

One command: ``python -m sb3_dreamer.zoo.studies.sizes`` (``--markdown`` prints the table of docs/dreamer_v3.md).

Two references. *Published*: the figure that names or accompanies the size (2023: Table B.1 of arXiv 2301.04104v1; 2024:
the name of the size in the authors' code). *Layers*: every kernel, bias and norm of the authors' December 2024 code
(``dreamerv3/rssm.py``, ``embodied/jax/heads.py``), counted by the arithmetic below, which shares nothing with the
networks of this package. The slow critic, a copy, is not counted.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

PUBLISHED = {"XS": 8e6, "S": 18e6, "M": 37e6, "L": 77e6, "XL": 200e6}
PUBLISHED |= {"1m": 1e6, "12m": 12e6, "25m": 25e6, "50m": 50e6, "100m": 100e6, "200m": 200e6, "400m": 400e6}
IMAGE, ACTIONS = (3, 64, 64), 18  # Atari with all actions


def layers_2024(deter: int, classes: int, depth: int, units: int, *, vector: int, actions: int, discrete: bool) -> int:
    """Parameters of the 2024 code.

    :param vector: width of the vector observation; 0: a 64x64 RGB image instead
    """
    stoch, blocks, bins = 32 * classes, 8, 255
    feat = deter + stoch

    def dense(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    def stack(inputs: int, count: int) -> int:  # each layer with a norm, which has a scale only
        return sum(dense(inputs if i == 0 else units, units) + units for i in range(count))

    def conv(inputs: int, outputs: int) -> int:
        return 25 * inputs * outputs + outputs

    widths = [depth * mult for mult in (2, 3, 4, 4)]
    if vector:
        embed = units
        codec = stack(vector, 3) + stack(feat, 3) + dense(units, vector)
    else:
        start = 4 * 4 * widths[-1]
        embed = start
        codec = sum(conv(a, b) + b for a, b in zip([IMAGE[0], *widths], widths, strict=False))
        codec += deter // blocks * start + start  # block-linear
        codec += dense(stoch, 2 * units) + 2 * units + dense(2 * units, start) + widths[-1]
        codec += sum(conv(a, b) + b for a, b in zip(widths[::-1], widths[-2::-1], strict=False)) + conv(widths[0], 3)
    core = sum(dense(inputs, units) + units for inputs in (deter, stoch, actions))
    core += (deter + blocks * 3 * units) * deter // blocks + 2 * deter  # block-linear, norm
    core += deter * 3 * deter // blocks + 3 * deter  # gates
    prior = stack(deter, 2) + dense(units, stoch)
    post = stack(deter + embed, 1) + dense(units, stoch)
    heads = stack(feat, 1) + dense(units, bins) + stack(feat, 1) + dense(units, 1)
    actor = stack(feat, 3) + dense(units, actions if discrete else 2 * actions)
    critic = stack(feat, 3) + dense(units, bins)
    return codec + core + prior + post + heads + actor + critic


def count(size: str, *, vector: int, actions: int, discrete: bool) -> int:
    """Parameters of our model of a size, built without memory for its weights."""
    import torch as th

    from sb3_dreamer.core.types import ActionLayout, ObsKey
    from sb3_dreamer.dreamer_v3.networks import build_networks
    from sb3_dreamer.dreamer_v3.spec import SIZES

    key = ObsKey("obs", "vector", (vector,)) if vector else ObsKey("obs", "image", IMAGE)
    layout = ActionLayout("discrete" if discrete else "continuous", (actions,))
    with th.device("meta"):
        world_model, behavior = build_networks(SIZES[size], (key,), layout)
    modules: tuple[Any, ...] = (world_model, behavior.actor, behavior.critic)
    return sum(param.numel() for module in modules for param in module.parameters())


def reference(size: str, *, vector: int, actions: int, discrete: bool) -> int | None:
    """What :func:`layers_2024` counts for a size of ours; None for the 2023 family."""
    from sb3_dreamer.dreamer_v3.spec import SIZES, DreamerV3Spec2024

    spec = SIZES[size]
    if not isinstance(spec, DreamerV3Spec2024) or size not in PUBLISHED:
        return None
    sizes = (spec.deter, spec.classes, spec.cnn_depth, spec.units)
    return layers_2024(*sizes, vector=vector, actions=actions, discrete=discrete)


def table() -> list[list[str]]:
    """Rows: size, family, published, and ours and the reference's layers for an image and for vectors."""
    from sb3_dreamer.dreamer_v3.spec import SIZES

    cases: dict[str, dict[str, Any]] = {"image": {"vector": 0, "actions": ACTIONS, "discrete": True}}
    cases["vector"] = {"vector": 24, "actions": 6, "discrete": False}  # walker_walk
    rows = [["size", "family", "published"]]
    for name in cases:
        rows[0] += [f"{name}: ours", "reference layers", "difference"]
    for size, spec in SIZES.items():
        row = [size, spec.family, f"{PUBLISHED[size] / 1e6:g}M" if size in PUBLISHED else "-"]
        for case in cases.values():
            ours, theirs = count(size, **case), reference(size, **case)
            row += [f"{ours:,}", f"{theirs:,}" if theirs else "-", f"{ours / theirs - 1:+.2%}" if theirs else "-"]
        rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    markdown = parser.parse_args(argv).markdown
    rows = table()
    if markdown:
        rows.insert(1, ["---"] * len(rows[0]))
        print("\n".join("| " + " | ".join(row) + " |" for row in rows))
        return 0
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
