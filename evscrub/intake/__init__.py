# SPDX-License-Identifier: Apache-2.0
"""Find images that may be due: announced on the message bus, or found by a sweep of the registry.

:mod:`evscrub.intake.listener` consumes Glance's notifications, :mod:`evscrub.intake.sweep` reads
the registry. Anybody with access to the bus can publish any message, so each is read within bounds
of memory and time, and only small, validated events leave this package:

* :mod:`evscrub.intake.frames` keeps AMQP content that is too large, or that the client library
  cannot decode, away from the client library;
* :mod:`evscrub.intake.decompression` decompresses a body up to a size limit;
* :mod:`evscrub.intake.envelope` decodes a body into an event, or rejects it with a reason;
* :mod:`evscrub.intake.transport` plugs these into kombu's AMQP transport.
"""

#: Largest body of a message in bytes, as sent and decompressed. Glance sends a few kilobytes; a
#: larger notification, of an image with very long properties, is left to the sweep.
MAX_BODY_BYTES = 4 << 20
