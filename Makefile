.PHONY: install test lint types docs

install:
	pip install -e ".[all]"

test:
	pytest -n 2 --dist loadfile

lint:
	ruff format --check .
	ruff check .

# mypy does not follow the folder mapping of an editable install, so it reads an installed copy.
types:
	rm -rf build/types
	pip install -q --no-deps --target build/types .
	MYPYPATH=build/types python -m mypy -p sb3_dreamer

docs:
	sphinx-build -W --keep-going -b html docs docs/_build/html
