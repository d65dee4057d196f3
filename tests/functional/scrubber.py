# SPDX-License-Identifier: Apache-2.0
"""Runs Glance's own scrubber, in a process that is not named like it.

`glance-scrubber --restore` refuses while it finds such a process anywhere on the machine, and other
tests may run one.
"""

from glance.cmd import scrubber

if __name__ == "__main__":
    scrubber.scrubber_already_running = lambda: False
    scrubber.main()
