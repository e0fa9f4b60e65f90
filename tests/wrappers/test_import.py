"""The wrappers must be usable without torch and without Stable-Baselines3."""

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "stable_baselines3"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""


def test_everything_but_vector_helpers_works_without_torch(run_script):
    code = BLOCKED + (
        "import sb3_dreamer.wrappers as w\n"
        "import pkgutil, importlib\n"
        "for m in pkgutil.walk_packages(w.__path__, 'sb3_dreamer.wrappers.'):\n"
        "    if not m.name.endswith(('restarting_vec_env', 'score_monitor', '__main__')):\n"
        "        importlib.import_module(m.name)\n"
        "env = w.make_env('CartPole-v1', action_repeat=2)\n"
        "env.reset(seed=0)\n"
        "print(env.step(0)[4]['frames'], w.check_dreamer_env(env).ok, 'atari100k' in w.suite_table())\n"
        "assert 'torch' not in sys.modules and 'stable_baselines3' not in sys.modules\n"
    )
    done = run_script(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "True", "True"]


def test_the_blocker_blocks(run_script):
    assert "blocked" in run_script(BLOCKED + "import torch").stderr


def test_vector_helper_says_what_is_missing(run_script):
    done = run_script(BLOCKED + "from sb3_dreamer.wrappers import make_vec_env; make_vec_env('CartPole-v1')")
    assert "stable_baselines3" in done.stderr


def test_unknown_name_is_an_attribute_error(run_script):
    assert "AttributeError" in run_script("import sb3_dreamer.wrappers as w; w.Nothing").stderr


def test_worker_processes_need_no_torch(run_script):
    code = (
        "import functools, multiprocessing as mp\n"
        "from sb3_dreamer.wrappers.vec.worker import run_worker\n"
        "from sb3_dreamer.wrappers.vec.make import build_env\n"
        "here, there = mp.get_context('spawn').Pipe()\n"
        "make = functools.partial(build_env, 'CartPole-v1', None, None, {}, None, {}, 0)\n"
        "process = mp.get_context('spawn').Process(target=run_worker, args=(there, here, make), daemon=True)\n"
        "process.start()\n"
        "here.send(('reset', (0, None)))\n"
        "print(here.recv()[0], 'torch' in open(f'/proc/{process.pid}/maps').read())\n"
        "here.send(('close', None)); process.join()\n"
    )
    done = run_script(code)
    assert done.stdout.split() == ["True", "False"], done.stderr
