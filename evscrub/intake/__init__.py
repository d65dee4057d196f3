# SPDX-License-Identifier: Apache-2.0
"""Read what strangers put on the bus, within bounds of memory and time.

Whoever may publish can put anything into a message. What goes up from here is small and checked:

* :mod:`evscrub.intake.frames` keeps AMQP content that is too large, or that the client library
  cannot decode, from the client library;
* :mod:`evscrub.intake.decompression` unpacks a body up to a limit;
* :mod:`evscrub.intake.envelope` decodes a body into an event, or says why it is none;
* :mod:`evscrub.intake.transport` puts these into kombu's AMQP transport.
"""

#: Bytes of a message's body, and of what it unpacks to. Glance sends a few kilobytes; an image with
#: every property at its longest has more, and is left to the sweep.
MAX_BODY_BYTES = 4 << 20
