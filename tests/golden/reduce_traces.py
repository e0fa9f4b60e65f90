"""Cut the authors' full traces (see README.md) down to what the tests compare.

python tests/golden/reduce_traces.py FOLDER_OF_FULL_TRACES
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
UPDATES = 5  #: that are kept
ENTRIES = 96  #: of each tensor's gradient or change, evenly spaced
ACTING_STEPS = 5
DREAM_2023 = ("rew", "ret", "base", "weight", "logpi", "ent", "actor_loss", "critic/critic_loss", "scale")
DREAM_V2 = ("action", "reward", "discount", "weight", "target", "logpi", "ent", "value", "slowvalue")
METRICS = {
    "2024": ("opt/loss", "opt/grad_norm"),
    "2023": ("model_opt_loss", "model_opt_grad_norm", "actor_opt_grad_norm", "extr_critic_critic_opt_grad_norm"),
    "v2": ("kl_loss", *(f"{part}_{what}" for part in ("model", "actor", "critic") for what in ("loss", "grad_norm"))),
}
FILES = {
    "2024": {kind: f"trace_2024_{kind}" for kind in ("discrete", "continuous")},
    "2023": {kind: f"trace_2023_{kind}" for kind in ("discrete", "continuous")},
    "v2": {kind: f"v2_{kind}" for kind in ("discrete", "both", "continuous", "untruncated")},
}
BASES = {"untruncated": "continuous"}  #: a kind that starts from the same weights and batches as another

Arrays = dict[str, np.ndarray]


def sampled(full: Arrays, prefix: str) -> np.ndarray:
    """Evenly spaced entries of a gradient or change, of all weights in the order of their names; NaN where none is.

    ``tests/traces.py`` puts them back.
    """
    parts = []
    for name in sorted(name for name in full if name.startswith("init/")):
        array = full.get(prefix + name.removeprefix("init/"), np.full_like(full[name], np.nan))
        parts.append(array.reshape(-1)[:: -(-array.size // ENTRIES)])
    return np.concatenate(parts)


def small(array: np.ndarray) -> np.ndarray:
    """Floats in float32."""
    return array.astype(np.float32) if array.dtype == np.float64 else array


def batch(version: str, full: Arrays, update: int) -> Arrays:
    """The rows of one batch; a 2024 batch has a context row, of which the action and the latent state are used."""
    names = ("image8", "vector", "reward", "is_first", "is_last", "is_terminal", "action")
    data = {name: full[f"data{update}/{name}"] for name in names}
    if version == "2024":
        data = {name: data[name] if name == "image8" else data[name][:, 1:] for name in names}
        data["action"] = full[f"data{update}/action"][:, :-1]
        data["deter"] = full[f"data{update}/dyn/deter"]
        data["stoch"] = full[f"data{update}/dyn/stoch"].argmax(-1).astype(np.uint8)
    return {f"data{update}/{name}": value for name, value in data.items()}


def reduced(version: str, full: Arrays) -> Arrays:
    """What the tests compare of one trace."""
    kept: Arrays = {name: value for name, value in full.items() if name.startswith(("init/", "init_retnorm/"))}
    dream = {"2024": (), "2023": DREAM_2023, "v2": DREAM_V2}[version]
    for update in range(1, UPDATES + 1):
        kept |= batch(version, full, update)
        at = f"update{update}"
        wanted = [f"{at}/metric/{name}" for name in METRICS[version]]
        wanted += [name for name in full if name.startswith((f"{at}/loss/", f"{at}/like/", f"{at}/retnorm/"))]
        if update == 1 or (update == UPDATES and version == "2023"):
            wanted += [f"{at}/dream/{name}" for name in dream]
        if update == UPDATES:
            wanted += [name for name in full if name.startswith((f"{at}/post/deter", f"{at}/entry/deter"))]
        kept |= {name: full[name] for name in wanted}
    kept["delta"] = sampled(full, f"update{UPDATES}/delta/")
    if version == "2024":
        kept["grad"] = sampled(full, "update1/grad/")
    return {name: small(value) for name, value in kept.items()}


def merged(traces: dict[str, Arrays]) -> Arrays:
    """Traces of several kinds under their names; what all share stands once, without, and what a base has, there."""
    first, *others = traces.values()
    shared = {name for name, value in first.items() if all(same(value, other.get(name)) for other in others)}
    result = {name: first[name] for name in shared}
    for kind, trace in traces.items():
        base = traces.get(BASES.get(kind, ""), {})
        new = [name for name in trace if name not in shared and not same(trace[name], base.get(name))]
        result |= {f"{kind}/{name}": trace[name] for name in new}
    return result


def same(left: np.ndarray, right: np.ndarray | None) -> bool:
    """Whether two arrays are equal; NaNs are."""
    return right is not None and np.array_equal(left, right, equal_nan=left.dtype.kind == "f")


def main(source: Path) -> None:
    """Write one file for each version, and one for acting."""
    for version, files in FILES.items():
        traces = {kind: reduced(version, dict(np.load(source / f"{name}.npz"))) for kind, name in files.items()}
        np.savez_compressed(HERE / f"trace_{version}.npz", **merged(traces))
    acting = {}
    for kind in ("discrete", "continuous"):
        full = dict(np.load(source / f"acting_{kind}.npz"))
        names = ("obs_image", "obs_vector", "obs_is_first", "act", "deter", "stoch")
        acting[kind] = {name: small(full[name][:ACTING_STEPS]) for name in names}
    np.savez_compressed(HERE / "acting_2024.npz", **merged(acting))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
