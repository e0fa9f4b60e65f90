"""The random generators of the process, taken and put back."""

import random
from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_dreamer.common.files.json_text import ModelFileError, one_line


class RandomState(NamedTuple):
    """States of Python's, numpy's and torch's global generators, and of the stream that ``predict`` draws from.

    The sampling of replay has a generator of its own, which is stored with the replay.

    :param tensors: by name: ``torch``, ``cuda``, ``predict``, ``python``, ``numpy``
    :param data: the rest, as JSON
    """

    tensors: dict[str, th.Tensor]
    data: dict[str, Any]

    @staticmethod
    def take(device: th.device, predict: th.Tensor | None) -> "RandomState":
        """The present states; nothing is drawn.

        :param device: of the model
        :param predict: state of the stream that ``predict`` draws from
        """
        version, words, gauss = random.getstate()
        kind, key, position, has_gauss, cached = np.random.get_state()
        tensors = {"torch": th.get_rng_state(), "python": th.tensor(words, dtype=th.int64)}
        tensors["numpy"] = th.from_numpy(np.asarray(key).astype(np.int64))
        if device.type == "cuda":
            tensors["cuda"] = th.cuda.get_rng_state(device)
        if predict is not None:
            tensors["predict"] = predict.clone()
        numpy = [kind, int(position), int(has_gauss), float(cached)]
        return RandomState(tensors, {"python": [version, gauss], "numpy": numpy})

    def put(self, device: th.device) -> th.Tensor | None:
        """Put the global generators back.

        :param device: of the model
        :return: state of the stream that ``predict`` draws from
        :raises ModelFileError: if they are not what :meth:`take` gave
        """
        try:
            version, gauss = self.data["python"]
            kind, position, has_gauss, cached = self.data["numpy"]
            random.setstate((version, tuple(self.tensors["python"].tolist()), gauss))
            np.random.set_state((kind, self.tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
            th.set_rng_state(self.tensors["torch"])
            if device.type == "cuda" and "cuda" in self.tensors:
                th.cuda.set_rng_state(self.tensors["cuda"], device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelFileError(f"the checkpoint holds no valid random states ({one_line(error)})") from error
        return self.tensors.get("predict")
