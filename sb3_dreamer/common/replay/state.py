"""A replay buffer as arrays and JSON, and back; every field of a file is checked before it is used."""

from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_dreamer.common.files.json_text import ModelFileError, one_line

if TYPE_CHECKING:
    from sb3_dreamer.common.replay.rows import ReplayRows
    from sb3_dreamer.common.replay.storage import DiskRows

CURSORS = {"cursor": np.int64, "filled": np.int64, "starts_episode": bool}


def random_to_json(rng: np.random.Generator) -> dict[str, Any]:
    """State of a generator; its 128-bit numbers as strings."""
    state = rng.bit_generator.state
    return {**state, "state": {name: str(value) for name, value in state["state"].items()}}


def random_from_json(state: Any) -> np.random.Generator:
    """The generator again.

    :raises ModelFileError: if it is not what :func:`random_to_json` gave
    """
    generator = np.random.default_rng()
    try:
        generator.bit_generator.state = {**state, "state": {key: int(value) for key, value in state["state"].items()}}
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise ModelFileError(f"the file holds no valid state of the sampling ({one_line(error)})") from error
    return generator


def to_arrays(buffer: "ReplayRows") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Everything that a file must hold: the rows written so far, cursors and the state of the sampling."""
    rows = int(np.minimum(buffer.written, buffer.ring).max())
    arrays = {name: array[:, :rows] for name, array in buffer.arrays.items()}
    cursors = {name: getattr(buffer, name) for name in CURSORS}
    about = {"rows": buffer.buffer_size, "ring": buffer.ring, "n_envs": buffer.n_envs}
    return arrays | cursors, about | {"random": random_to_json(buffer.rng)}


def from_arrays(buffer: "ReplayRows", arrays: dict[str, np.ndarray], metadata: dict[str, Any], name: str) -> None:
    """Take over what :func:`to_arrays` gave; nothing changes if it does not fit.

    :param name: of the file, for messages
    :raises ModelFileError: if the rows are of other spaces, another number of environments or another size
    """
    if (metadata.get("rows"), metadata.get("n_envs")) != (buffer.buffer_size, buffer.n_envs):
        raise ModelFileError(
            f"{name} is a replay of {one_line(metadata.get('n_envs'))} environments with "
            f"{one_line(metadata.get('rows'))} rows each, this model has {buffer.n_envs} with {buffer.buffer_size}: "
            "load the model with the same buffer_size and n_envs"
        )
    ring = metadata.get("ring", buffer.buffer_size)  # the first release had no rows to spare
    _check_arrays(buffer, arrays, ring, name)
    generator = random_from_json(metadata.get("random"))
    filled, cursor = arrays["filled"].copy(), arrays["cursor"]
    buffer.release()
    buffer.rng, buffer.filled, buffer.starts_episode = generator, filled, arrays["starts_episode"].copy()
    same = ring == buffer.ring
    buffer.written = np.where(filled == buffer.buffer_size, ring + cursor, cursor) if same else filled.copy()
    buffer.cursor = buffer.written % buffer.ring
    if not filled.any():
        return
    buffer.allocate()
    for key, array in buffer.arrays.items():
        if same:
            array[:, : arrays[key].shape[1]] = arrays[key]
            continue
        for env in range(buffer.n_envs):
            order = (cursor[env] - filled[env] + np.arange(filled[env])) % ring
            array[env, : filled[env]] = arrays[key][env, order]


def _check_arrays(buffer: "ReplayRows", arrays: dict[str, np.ndarray], ring: Any, name: str) -> None:
    if type(ring) is not int or ring < buffer.buffer_size:
        raise ModelFileError(f"{name} has a ring of {one_line(ring)} rows: the file is damaged")
    expected: dict[str, tuple[tuple[int, ...], np.dtype]] = {
        key: ((buffer.n_envs,), np.dtype(dtype)) for key, dtype in CURSORS.items()
    }
    filled = np.asarray(arrays.get("filled", []))
    if filled.shape == (buffer.n_envs,) and filled.any():
        rows = arrays["reward"].shape[1] if arrays.get("reward", filled).ndim == 2 else -1
        rows = rows if 0 < rows <= ring else -1
        layout = buffer.layout()
        expected |= {key: ((buffer.n_envs, rows, *shape), dtype) for key, (shape, dtype) in layout.items()}
    for key, (shape, dtype) in expected.items():
        found = arrays.get(key)
        if found is None or found.shape != shape or found.dtype != dtype:
            what = "is missing" if found is None else f"is {found.dtype} {found.shape}"
            raise ModelFileError(f"{name} does not fit this model: {key} {what}, expected {dtype} {shape}")
    cursor, rows = arrays["cursor"], arrays["reward"].shape[1] if filled.any() else 0
    # Rows up to the cursor are there; a ring that has begun again is there as a whole.
    whole = (filled <= cursor) | (rows == ring)
    if not (0 <= filled.min() <= filled.max() <= buffer.buffer_size and 0 <= cursor.min() <= cursor.max() < ring):
        raise ModelFileError(f"{name} has cursors outside the buffer: the file is damaged")
    if filled.any() and not (whole.all() and (np.where(rows == ring, 0, cursor) <= rows).all()):
        raise ModelFileError(f"{name} has fewer rows than its cursors say: the file is damaged")


def attach(buffer: "ReplayRows", storage: "DiskRows", state: dict[str, Any] | None) -> int:
    """Map the files of a replay folder, with the cursors of a checkpoint or of its own journal.

    The journal's ``limit`` is how many rows of an environment the last run may have written before it died. What lies
    that far behind the rows of ``state`` in the ring is no longer what it was, and is not sampled.

    :return: number of lost rows
    :raises ModelFileError: if the folder is damaged, or of another buffer
    """
    arrays = storage.open(buffer.layout(), buffer.n_envs, buffer.ring)
    journal = storage.read_journal()
    state = journal if state is None else state
    cursors = {name: np.array(state[name], np.int64) for name in ("cursor", "filled", "written")}
    filled, written = cursors["filled"], cursors["written"]
    fits = state["ring"] == buffer.ring and state["rows"] == buffer.buffer_size and len(filled) == buffer.n_envs
    sound = (filled >= 0).all() and (filled <= np.minimum(written, buffer.buffer_size)).all()
    if not fits or not sound or (cursors["cursor"] != written % buffer.ring).any():
        raise ModelFileError(f"the cursors for '{storage.folder}' do not fit its rows: another buffer_size, or damaged")
    intact = np.clip(written - (np.array(journal["limit"], np.int64) - buffer.ring), 0, filled)
    lost = int((filled - intact).sum())
    buffer.rng = random_from_json(state["random"])
    buffer.cursor, buffer.filled, buffer.written = cursors["cursor"], intact, written
    buffer.starts_episode = np.array(state["starts_episode"], bool)
    buffer.arrays = arrays
    buffer.flush()
    return lost
