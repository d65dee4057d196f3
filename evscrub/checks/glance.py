# SPDX-License-Identifier: Apache-2.0
"""Checks of Glance's options."""

from datetime import timedelta

from oslo_config import cfg
from oslo_messaging import opts as messaging_opts

from evscrub.checks.report import Findings
from evscrub.checks.subject import Subject
from evscrub.config.settings import unset_delay
from evscrub.domain.words import in_words

#: Default age of ``glance-manage db purge``.
PURGE_AGE = timedelta(days=30)

NOTIFICATIONS = "oslo_messaging_notifications"
_MESSAGING_DRIVERS = frozenset({"messaging", "messagingv2"})
#: Either entry suppresses the notification that evscrub needs.
_SILENCING = frozenset({"image", "image.delete"})
_RESTART = "and restart glance-api"


def delayed_delete(subject: Subject) -> Findings:
    """Check that Glance leaves deleted data to a scrubber."""
    found = Findings()
    if not subject.conf.delayed_delete:
        files = ", ".join(subject.conf.config_file or []) or "no file"
        found.fail(
            "delayed_delete is off: Glance deletes the data itself, while the user waits, and"
            " evscrub has nothing to do. Set [DEFAULT] delayed_delete = True in glance-api.conf"
            f" {_RESTART}. Read here: {files}; if glance-api.conf is not among them, name it in"
            " [DEFAULT] glance_config_files of evscrub.conf."
        )
    return found


def notifications(subject: Subject) -> Findings:
    """Check that Glance announces deleted images where evscrub listens."""
    found = Findings()
    conf = subject.conf
    register(conf)
    options = conf[NOTIFICATIONS]
    drivers = set(options.driver)
    if not drivers & _MESSAGING_DRIVERS:
        said = ", ".join(options.driver) or "not set"
        text = (
            f"Glance's notification driver is {said}, so nothing reaches the bus and images wait"
            f" for a sweep. Set [{NOTIFICATIONS}] driver = messagingv2 in glance-api.conf"
            f" {_RESTART}."
        )
        if "routing" in drivers:
            found.warn(
                f"Notifications are routed by [{NOTIFICATIONS}] routing_config, which this check"
                " does not read: make sure that image.delete goes to messagingv2."
            )
        else:
            found.fail(text)
    topics, wanted = list(options.topics), list(conf.listener.topics)
    if not set(topics) & set(wanted):
        found.fail(
            f"evscrub listens to the topic {' and '.join(wanted) or '(none)'}, but Glance sends to"
            f" {' and '.join(topics) or '(none)'}. Set [{NOTIFICATIONS}] topics ="
            f" {','.join([*topics, *wanted[:1]])} in glance-api.conf {_RESTART}."
        )
    silenced = sorted(_SILENCING & set(conf.disabled_notifications))
    if silenced:
        found.fail(
            f"Glance's disabled_notifications has {' and '.join(silenced)}: remove that from"
            f" [DEFAULT] disabled_notifications in glance-api.conf {_RESTART}."
        )
    if conf.control_exchange != conf.listener.exchange:
        found.fail(
            f"Glance publishes on the exchange {conf.control_exchange}, evscrub listens on"
            f" {conf.listener.exchange}. Set [listener] exchange = {conf.control_exchange} in"
            " evscrub.conf."
        )
    return found


def purge_age(subject: Subject) -> Findings:
    """Check that rows are not purged before their data is gone."""
    found = Findings()
    if warning := unset_delay(subject.conf):
        found.warn(f"{warning}.")
    delay = timedelta(seconds=subject.conf.scrub_time)
    said = f"Data is kept for {in_words(delay.total_seconds())} after a DELETE"
    if not delay:
        said = "Data is deleted right after a DELETE"
    if delay >= PURGE_AGE:
        found.warn(
            f"{said}, but 'glance-manage db purge' removes the rows of images deleted more than"
            f" {PURGE_AGE.days} days ago by default, whether or not their data is gone, and then"
            " nothing can find that data again. Lower [DEFAULT] scrub_time, or run the purge with"
            " an --age_in_days well above it."
        )
    else:
        found.note(f"{said}; keep that well below the --age_in_days of 'glance-manage db purge'.")
    return found


def register(conf: cfg.ConfigOpts) -> None:
    """Register the options of oslo.messaging that the checks read."""
    for group, options in messaging_opts.list_opts():
        if group in {None, NOTIFICATIONS}:
            conf.register_opts(options, group=group)
