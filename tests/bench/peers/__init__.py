# SPDX-License-Identifier: Apache-2.0
"""What is measured: each runs in a process of its own and says when its work begins and ends."""
