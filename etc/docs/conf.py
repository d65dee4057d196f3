# SPDX-License-Identifier: Apache-2.0
"""How Sphinx builds the documentation.

``tests/run.sh docs`` builds it, with warnings as errors.
"""

import sys
import tomllib
from pathlib import Path

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parents[1]
# The extension beside this file documents the code of this repository, not an installed release.
sys.path[:0] = [str(_REPOSITORY), str(_HERE)]

_PROJECT = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text())["project"]

project = "evscrub"
author = "evscrub contributors"
project_copyright = f"{author}, Apache License 2.0"
version = release = _PROJECT["version"]

extensions = ["oslo_config.sphinxext", "reference"]
nitpicky = True
# It would make one dash of the two of an option, and curly quotes of those to be copied.
smartquotes = False

html_theme = "furo"
html_title = f"evscrub {release}"
html_static_path = ["_static"]
html_css_files = ["evscrub.css"]
html_show_sphinx = False
html_copy_source = False

man_pages = [("evscrub.8", "evscrub", "scrub deleted Glance images when they are due", author, 8)]
# The page is in the repository, so it must not change from day to day.
today = f"evscrub {release}"
