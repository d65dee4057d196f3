# SPDX-License-Identifier: Apache-2.0
"""Event-driven scrubber for OpenStack Glance images in ``pending_delete``."""
