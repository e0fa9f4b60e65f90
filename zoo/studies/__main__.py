"""List the studies and what each is for: ``python -m sb3_dreamer.zoo.studies``."""

import ast
from pathlib import Path


def purposes() -> dict[str, str]:
    """Read the first line of each study's docstring, without importing it."""
    paths = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("__"))
    texts = {path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in paths}
    return {name: (text or "").splitlines()[0] for name, text in texts.items()}


def main() -> None:
    """Print the list."""
    print("usage: python -m sb3_dreamer.zoo.studies.STUDY [--help] ...\n")
    for name, text in purposes().items():
        print(f"  {name:<22}  {text}")


if __name__ == "__main__":
    main()
