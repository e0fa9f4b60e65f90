"""Open-loop prediction (DreamerV3, Figure 5): what the model expects after a few frames, from the actions alone."""

from typing import NamedTuple

import torch as th

from sb3_dreamer.core.functional import symlog
from sb3_dreamer.core.types import LatentState, ObsKey, SequenceBatch
from sb3_dreamer.core.world_model import WorldModel

PANELS = ("real", "model", "error")  #: columns of :func:`open_loop_frames`
BORDER = 2  #: of each, in pixels


class OpenLoop(NamedTuple):
    """Predictions for sequences of T = context + H rows; the context rows are reconstructions.

    :param obs: by key, in the units of the environment, ``(B, T, *shape)``
    :param reward: means, ``(B, T)``
    :param cont: probabilities to continue, ``(B, T)``
    """

    obs: dict[str, th.Tensor]
    reward: th.Tensor
    cont: th.Tensor


@th.no_grad()
def predict_open_loop(
    world_model: WorldModel, batch: SequenceBatch, context: int, state: LatentState | None = None
) -> OpenLoop:
    """Filter the first rows, then dream with the actions that were really taken.

    :param batch: ``(B, T, ...)``
    :param context: rows that the model sees (the paper: 5), at least 1 and less than T
    :param state: before the first row; None: the sequences begin afresh
    :raises ValueError: if ``context`` leaves nothing to see or to predict
    """
    length = batch.reward.shape[1]
    if not 1 <= context < length:
        raise ValueError(f"context={context} must be at least 1 and less than the {length} rows of the sequences")
    observed = world_model.observe(batch.map(lambda part: part[:, :context]), state).state
    last = LatentState(observed.deter[:, -1], observed.stoch[:, -1])
    actions = iter(batch.prev_action[:, context:].unbind(1))
    dreamed, _ = world_model.imagine(lambda _: next(actions), last, length - context)
    feat = th.cat([observed.feat, dreamed.feat], 1)
    return OpenLoop(world_model.decode(feat), world_model.reward(feat), world_model.continue_probability(feat))


@th.no_grad()
def open_loop_errors(
    prediction: OpenLoop, batch: SequenceBatch, keys: tuple[ObsKey, ...], context: int
) -> dict[str, th.Tensor]:
    """Errors by steps ahead, ``(H,)`` each; names ending in ``_copy`` repeat the last row that was seen.

    ``image_error``: mean squared error of pixels in [0, 1]; ``psnr``: in dB, per frame; ``vector_error``: mean
    squared error of symlog values; ``discrete_error``: share of wrong categories; ``reward_error`` and ``cont_error``:
    mean absolute error.
    Rows after the end of an episode do not count; a horizon that no sequence reaches is NaN.
    """
    same_episode = th.cumsum(batch.is_first[:, context:].int(), 1) == 0
    count = same_episode.sum(0)

    def mean(value: th.Tensor) -> th.Tensor:
        return th.where(same_episode, value, 0.0).sum(0) / count.where(count > 0, th.nan)

    errors: dict[str, list[th.Tensor]] = {}
    for key in keys:
        real, model = batch.obs[key.name], prediction.obs[key.name][:, context:]
        for suffix, guess in (("", model), ("_copy", real[:, context - 1 : context].expand_as(model))):
            error = _key_error(key, guess, real[:, context:])
            errors.setdefault(f"{key.kind}_error{suffix}", []).append(mean(error))
            if key.kind == "image":
                errors.setdefault(f"psnr{suffix}", []).append(mean(-10.0 * error.clamp(min=1e-10).log10()))
    flags = {"reward": (prediction.reward, batch.reward), "cont": (prediction.cont, 1.0 - batch.is_terminal.float())}
    for name, (guess, real) in flags.items():
        errors[f"{name}_error"] = [mean((guess - real)[:, context:].abs())]
        errors[f"{name}_error_copy"] = [mean((real[:, context - 1 : context] - real[:, context:]).abs())]
    return {name: th.stack(values).mean(0) for name, values in errors.items()}


def _key_error(key: ObsKey, guess: th.Tensor, real: th.Tensor) -> th.Tensor:
    """Error of one key, ``(B, H, *shape)`` twice to ``(B, H)``."""
    if key.kind == "discrete":
        wrong = (guess != real).float()
        return wrong.flatten(2).mean(-1) if key.shape else wrong
    guess, real = guess.float(), real.float()
    difference = (guess - real) / key.white if key.kind == "image" else symlog(guess) - symlog(real)
    return difference.square().flatten(2).mean(-1)


@th.no_grad()
def open_loop_frames(prediction: OpenLoop, batch: SequenceBatch, key: ObsKey, context: int) -> th.Tensor:
    """Frames of a video of real | model | error, one sequence below the other: ``(T, rows, columns, 3)`` uint8.

    The border is green while the model sees the frames and red while it predicts them. Gray in the error means none.

    :param key: of kind ``image``; of more than three channels the last is shown
    """
    pair = (batch.obs[key.name], prediction.obs[key.name])
    real, model = ((255.0 / key.white * part.float()).clamp(0.0, 255.0) for part in pair)
    if key.shape[0] != 3:
        real, model = (part[:, :, -1:].expand(*part.shape[:2], 3, *part.shape[3:]) for part in (real, model))
    error = (model - real) / 2.0 + 127.5
    length = real.shape[1]
    color = real.new_tensor([[0.0, 200.0, 0.0]] * context + [[220.0, 0.0, 0.0]] * (length - context))
    panels = []
    for part in (real, model, error):
        rows, columns = (side + 2 * BORDER for side in part.shape[3:])
        frame = color[None, :, :, None, None].repeat(len(part), 1, 1, rows, columns)
        frame[..., BORDER:-BORDER, BORDER:-BORDER] = part
        panels.append(frame)
    video = th.cat(panels, -1)  # (B, T, 3, rows, columns)
    return video.permute(1, 0, 3, 4, 2).flatten(1, 2).round().to(th.uint8)
