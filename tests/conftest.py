"""What tests of several files share: one thread of torch, here and in the processes that tests start.

Figures and bits must not depend on the number of threads, and small networks are faster with one.
"""

import os

import torch as th

os.environ["OMP_NUM_THREADS"] = "1"
th.set_num_threads(1)
