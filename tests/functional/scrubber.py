# SPDX-License-Identifier: Apache-2.0
"""Runs Glance's own scrubber, in a process that is not named like it.

`glance-scrubber --restore` refuses while it finds such a process anywhere on the machine, and other
tests may run one.
"""

import functools
from contextlib import suppress

from glance.cmd import scrubber

if __name__ == "__main__":
    with suppress(ModuleNotFoundError):  # environments of other releases are without S3
        from botocore import session

        # It makes a client for each delete, and each would parse for itself what boto3 knows.
        session.create_loader = functools.cache(session.create_loader)
    scrubber.scrubber_already_running = lambda: False
    scrubber.main()
