"""Read an agent saved by the authors' December 2024 code (danijar/dreamerv3)."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from stable_baselines3.common.type_aliases import GymEnv

from sb3_dreamer.common.arguments import check_range
from sb3_dreamer.common.files.atomic import open_to_read
from sb3_dreamer.common.files.json_text import ModelFileError, one_line
from sb3_dreamer.common.policy import WorldModelPolicy
from sb3_dreamer.convert.dreamer_v3_2024 import PARTS, weights_2024
from sb3_dreamer.convert.renaming import Arrays, copy_weights
from sb3_dreamer.dreamer_v3.dreamer_v3 import DreamerV3
from sb3_dreamer.dreamer_v3.spec import SIZES_2024

STOCH = 32  #: latent variables of all released sizes; the arrays only tell their number times their classes
#: makes the .npz, where the pickle is trusted
TO_NPZ = "params = pickle.load(open('agent.pkl', 'rb'))['params']; np.savez('agent.npz', **params)"
NUMPY = {  #: all that a pickled dict of arrays is made of
    *(("numpy", name) for name in ("ndarray", "dtype")),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("_codecs", "encode"),
}


def load_official(
    path: str | Path,
    policy: str | type[WorldModelPolicy],
    env: GymEnv | str,
    *,
    trust: bool = False,
    policy_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> DreamerV3:
    """Make a :class:`DreamerV3` from an agent that the authors' December 2024 code saved.

    The size is inferred from the arrays. The model gets the agent's weights, slow critic and range of returns, but
    neither optimizer state nor replay. The environment must have the agent's observations, by the same names if
    there are several, and its actions in the same order.

    :param path: an ``.npz`` of the agent's named arrays (see docs/dreamer_v3.md), or with ``trust`` its ``agent.pkl``
    :param policy: as of :class:`DreamerV3`
    :param env: as of :class:`DreamerV3`
    :param trust: read a pickle; do so only with files of your own. Anything but arrays in it is refused
    :param policy_kwargs: as of :class:`DreamerV3`; ``stoch``, if the agent does not have the 32 of all released sizes
    :param kwargs: further arguments of :class:`DreamerV3`
    :raises ModelFileError: for a pickle without ``trust``, any other file, and missing arrays
    :raises ValueError: if the agent has other observations or actions than ``env``, or settings that we do not have
    """
    arrays = read_arrays(Path(path), trust)
    size, fields = size_of(arrays, (policy_kwargs or {}).get("stoch", STOCH))
    model = DreamerV3(policy, env, model_size=size, policy_kwargs=fields | (policy_kwargs or {}), **kwargs)
    weights = {name: array for name, array in arrays.items() if name.split("/")[0] in PARTS}
    copy_weights(model.policy, weights_2024(model.policy, weights))
    norm = model.behavior.return_norm
    for buffer, name in ((norm.low, "retnorm/lo/value"), (norm.high, "retnorm/hi/value")):
        if name in arrays:
            buffer.fill_(float(arrays[name]))
    return model


def read_arrays(path: Path, trust: bool) -> dict[str, np.ndarray]:
    """Named arrays of a file.

    :raises ModelFileError: see :func:`load_official`
    """
    with open_to_read(path) as (file, _):
        if file.read(4).startswith(b"PK"):
            file.seek(0)
            return _read_npz(file, path)
        if not trust:
            raise ModelFileError(
                f"{path} is not an .npz file. The authors' agent.pkl is a pickle, which can run code when it is read: "
                f"make an .npz where you trust it ({TO_NPZ}), or read a file of your own with trust=True"
            )
        file.seek(0)
        try:
            data = _ArrayUnpickler(file).load()
        except (
            pickle.UnpicklingError,
            EOFError,
            AttributeError,
            ImportError,
            IndexError,
            TypeError,
            ValueError,
        ) as error:
            raise ModelFileError(f"{path} is not a pickled dict of arrays ({one_line(error)})") from error
    params = data.get("params") if isinstance(data, Mapping) else None
    if not isinstance(params, Mapping) or not all(
        isinstance(array, np.ndarray | np.generic) for array in params.values()
    ):
        raise ModelFileError(f"{path} has no arrays in 'params': pass the agent.pkl of a checkpoint")
    return {name: np.asarray(array) for name, array in params.items()}


def _read_npz(file: IO[bytes], path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # a zip of anything
        raise ModelFileError(f"{path} is not an .npz of arrays ({one_line(error)})") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Knows numpy's arrays and nothing else, so that a pickle can call nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NUMPY:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays are read")
        return super().find_class(module, name)


def size_of(arrays: Arrays, stoch: int) -> tuple[str, dict[str, Any]]:
    """The size that an agent's arrays have.

    :param stoch: latent variables
    :return: its name and no fields, or ``debug2024`` and the fields that differ from those
    :raises ModelFileError: if the arrays are not those of a 2024 agent
    :raises ValueError: if the agent has another number of latent variables
    """
    check_range("stoch", stoch, 1, whole=True, hint="of policy_kwargs")
    try:
        blocks, per_block, _ = arrays["dyn/dyngru/kernel"].shape
        fields = {
            "deter": blocks * per_block,
            "blocks": blocks,
            "hidden": arrays["dyn/dynin0/kernel"].shape[1],
            "stoch": stoch,
            "classes": arrays["dyn/obslogit/kernel"].shape[1] // stoch,
            "units": arrays["val/mlp/linear0/kernel"].shape[1],
            "layers": sum(name.startswith("val/mlp/linear") and name.endswith("/kernel") for name in arrays),
            "bins": arrays["val/head/logits/bias"].shape[0],
        }
        if "enc/cnn0/kernel" in arrays:
            fields["cnn_depth"] = arrays["enc/cnn0/kernel"].shape[3] // 2
    except (KeyError, ValueError, IndexError) as error:
        raise ModelFileError(
            f"the arrays are not those of an agent of the December 2024 code ({one_line(error)})"
        ) from error
    latents = arrays["dyn/obslogit/kernel"].shape[1]
    if latents % stoch:
        raise ValueError(
            f"the agent's {latents} logits are not those of stoch={stoch} latent variables: pass their number, "
            "policy_kwargs={'stoch': ...}"
        )
    for name, spec in SIZES_2024.items():
        if all(getattr(spec, field) == value for field, value in fields.items()):
            return name, {}
    return "debug2024", fields
