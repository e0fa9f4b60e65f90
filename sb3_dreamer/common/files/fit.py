"""Settings of a file must fit the weights beside them, or be refused before memory and time are spent on them."""

import contextlib
from collections.abc import Iterator, Mapping

import torch as th
from torch.nn.modules.module import register_module_parameter_registration_hook

from sb3_dreamer.common.files.json_text import ModelFileError, one_line


@contextlib.contextmanager
def only_stored(weights: Mapping[str, th.Tensor], what: str, *, passed: bool = False) -> Iterator[None]:
    """
    Refuse any parameter, while modules are built from the settings of a file, that the file holds no weights for.

    A parameter is refused before its memory is touched, so that a small file cannot ask for a large module: 20,000
    layers, or a layer of 10^9 units, end at the first that is too many. Names are left to ``load_state_dict``.

    :param weights: what the file holds for these modules
    :param what: name of the file, for the message
    :param passed: some settings are the caller's and not the file's: other exceptions are raised as they are
    :raises ModelFileError: for such a parameter, and for any exception in the block
    """
    largest = max((tensor.numel() for tensor in weights.values()), default=0)
    # Twice, and of any shape up to the largest: a parameter may be registered again, or replaced, on the way.
    tensors, numbers = 2 * len(weights), 2 * sum(tensor.numel() for tensor in weights.values())

    def refuse_others(module: th.nn.Module, name: str, param: th.nn.Parameter | None) -> None:
        nonlocal tensors, numbers
        if param is None:
            return
        tensors, numbers = tensors - 1, numbers - param.numel()
        if param.numel() > largest or min(tensors, numbers) < 0:
            raise ModelFileError(
                f"the weights in {what} do not fit the settings: those ask for {name} of shape {list(param.shape)} in "
                f"{type(module).__name__}, beyond the {len(weights)} tensors in the file. If settings were passed to "
                "load(), leave them out"
            )

    hook = register_module_parameter_registration_hook(refuse_others)
    try:
        yield
    except ModelFileError:
        raise
    except Exception as error:
        if passed:
            raise
        # The settings come from a file: whatever a constructor makes of them is its fault.
        reason = one_line(f"{type(error).__name__}: {error}", 400)
        raise ModelFileError(f"{what} has settings that build no model ({reason})") from error
    finally:
        hook.remove()
