"""The random generators of the process, taken and put back."""

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th

from sb3_dreamer.common.files.json_text import ModelFileError, one_line

if TYPE_CHECKING:
    from sb3_dreamer.common.algorithm import WorldModelAlgorithm


class RandomState(NamedTuple):
    """States of Python's, numpy's and torch's global generators, and of the stream that ``predict`` draws from.

    The sampling of replay has a generator of its own, which is stored with the replay.

    :param tensors: by name: ``torch``, ``cuda``, ``predict``, ``python``, ``numpy``
    :param data: the rest, as JSON
    """

    tensors: dict[str, th.Tensor]
    data: dict[str, Any]

    @staticmethod
    def take(model: "WorldModelAlgorithm") -> "RandomState":
        """The present states; nothing is drawn."""
        version, words, gauss = random.getstate()
        kind, key, position, has_gauss, cached = np.random.get_state()
        tensors = {"torch": th.get_rng_state(), "python": th.tensor(words, dtype=th.int64)}
        tensors["numpy"] = th.from_numpy(np.asarray(key).astype(np.int64))
        if model.device.type == "cuda":
            tensors["cuda"] = th.cuda.get_rng_state(model.device)
        if model.policy.random_state is not None:
            tensors["predict"] = model.policy.random_state.clone()
        numpy = [kind, int(position), int(has_gauss), float(cached)]
        return RandomState(tensors, {"python": [version, gauss], "numpy": numpy})

    def put(self, model: "WorldModelAlgorithm") -> None:
        """Put them back.

        :raises ModelFileError: if they are not what :meth:`take` gave
        """
        try:
            version, gauss = self.data["python"]
            kind, position, has_gauss, cached = self.data["numpy"]
            random.setstate((version, tuple(self.tensors["python"].tolist()), gauss))
            np.random.set_state((kind, self.tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
            th.set_rng_state(self.tensors["torch"])
            if model.device.type == "cuda" and "cuda" in self.tensors:
                th.cuda.set_rng_state(self.tensors["cuda"], model.device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(f"the checkpoint holds no valid random states ({one_line(error)})") from error
        model.policy.random_state = self.tensors.get("predict")
