"""Keep freed memory in the process: an update on a CPU asks for the same large tensors again and again."""

import ctypes
import sys

KEEP = 1 << 30  #: bytes of freed memory at the end of the heap that are not given back
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_LARGEST_MMAP_THRESHOLD = 1 << 25  # glibc refuses more: half of a heap of 64 MiB


def keep_freed_memory() -> bool:
    """Tell glibc's allocator not to return freed memory at once; a no-op elsewhere.

    Every large tensor otherwise comes fresh from the kernel, which clears its pages first: 11 to 16% of the time of an
    update of DreamerV3 ``1m`` with 16 x 64 steps. The process then holds up to 1 GiB longer than it needs. Values set
    through the environment (``MALLOC_TRIM_THRESHOLD_`` and others, see ``man mallopt``) are replaced.

    :return: whether it was done
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)) and bool(mallopt(_M_TRIM_THRESHOLD, KEEP))
