"""What the rest of the library imports to write and read files: JSON and safetensors only, versioned, atomic.

Nothing on this path can run code from a file: a file that holds a pickle is refused by name.
"""

from sb3_dreamer.common.files.array_file import is_pickle_file, read_arrays, write_arrays
from sb3_dreamer.common.files.atomic import atomic_write
from sb3_dreamer.common.files.json_codec import decode, encode, register_type
from sb3_dreamer.common.files.json_text import ModelFileError, NotEncodable
from sb3_dreamer.common.files.model_file import FORMAT_VERSION, MIGRATIONS, ModelFile, read_model, write_model
from sb3_dreamer.common.files.optimizer_state import load_optimizer, optimizer_to_tensors

__all__ = [
    "FORMAT_VERSION",
    "MIGRATIONS",
    "ModelFile",
    "ModelFileError",
    "NotEncodable",
    "atomic_write",
    "decode",
    "encode",
    "is_pickle_file",
    "load_optimizer",
    "optimizer_to_tensors",
    "read_arrays",
    "read_model",
    "register_type",
    "write_arrays",
    "write_model",
]
