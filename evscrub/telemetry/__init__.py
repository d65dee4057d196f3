# SPDX-License-Identifier: Apache-2.0
"""What evscrub logs, counts and announces about itself, without credentials."""
