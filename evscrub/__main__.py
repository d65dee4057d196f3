# SPDX-License-Identifier: Apache-2.0
"""Run the ``evscrub`` command as ``python -m evscrub``."""

import sys

from evscrub.cli import main

if __name__ == "__main__":
    sys.exit(main())
