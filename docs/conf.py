"""Sphinx configuration: ``sphinx-build -W --keep-going -b html docs docs/_build/html``.

The notebooks of ``docs/tutorials`` have no outputs in the repository; the build executes them, once until they change.
"""

from sb3_dreamer import __version__

project = "sb3-dreamer"
author = "The sb3-dreamer developers"
copyright = "The sb3-dreamer developers"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "results", "media"]
templates_path: list[str] = []

# Markdown: $..$ and $$..$$, headings as targets, ::: fences.
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

# Notebooks: executed, some minutes of training included; the build fails if a cell does.
nb_execution_mode = "cache"
nb_execution_timeout = 600  # seconds of a cell
nb_execution_raise_on_error = True

# API: everything is imported for real, so that a docstring that is not there is an error of the build.
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature's types are in the :param: texts where they say something
autodoc_preserve_defaults = True
add_module_names = False

html_theme = "furo"
html_title = f"sb3-dreamer {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sphinx = False
