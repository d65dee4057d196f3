# SPDX-License-Identifier: Apache-2.0
"""``evscrub check`` with a real Glance, RabbitMQ and MariaDB, each broken in turn."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from kombu import Connection, Queue
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from evscrub.demo.glance_config import GlanceConfig
from tests.functional import commands
from tests.glance_client import GlanceClient
from tests.glance_process import GlanceProcess
from tests.servers import MariaDB, RabbitMQ, free_port

KEY = "0123456789abcdef"
MULTI_TENANT = "[cheap]\nswift_store_multi_tenant = True"
SUCCESS, WARNING, FAILURE = 0, 1, 2


@dataclass
class Checked:
    """The output of a check."""

    code: int
    output: str
    errors: str

    def details(self, check: str) -> str:
        """Return the details of one check."""
        found = {one["check"]: one for one in json.loads(self.output)["checks"]}[check]
        return str(found["details"])

    def bad(self) -> list[str]:
        """Return the names of the checks that failed or warned, without those that did not run."""
        return [
            one["check"]
            for one in json.loads(self.output)["checks"]
            if one["result"] and not str(one["details"]).startswith("Not checked")
        ]


class Deployment:
    """A Glance with four images, one of them deleted, to be checked and broken."""

    def __init__(self, home: Path, rabbitmq: RabbitMQ, mariadb: MariaDB, python: str) -> None:
        self.home = home
        self.rabbitmq = rabbitmq
        self.mariadb = mariadb
        self.url = mariadb.new_database("checked")
        self.database = make_url(self.url).database
        self.process = GlanceProcess(
            GlanceConfig(
                home / "glance",
                free_port(),
                self.url,
                rabbitmq.url,
                stores={"fast": "file", "cheap": "file"},
                metadata_encryption_key=KEY,
                python=python,
            )
        )
        self.glance_conf = home / "glance/glance-api.conf"
        self.images: list[str] = []

    @contextmanager
    def reader(self) -> Iterator[None]:
        """Consume Glance's default topic, as Ceilometer does."""
        with Connection(self.rabbitmq.url.replace("rabbit:", "pyamqp:")) as connection:
            queue = Queue("notifications.info", durable=False)
            with connection.Consumer(queue, on_message=lambda _: None, auto_declare=False):
                yield

    def fill(self) -> None:
        """Create the images and delete the first."""
        with GlanceClient(self.process.url) as client:
            for number in range(4):
                self.images.append(client.create(f"image {number}"))
                client.upload(self.images[-1], b"x" * 100)
            client.delete(self.images[0])

    def check(
        self,
        *changes: tuple[str, str],
        own: str = "",
        delay: str = "scrub_time = 0\n",
        arguments: tuple[str, ...] = ("--json",),
    ) -> Checked:
        """Run the check with changes to Glance's configuration and with options for evscrub."""
        text = self.glance_conf.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (self.home / "glance-api.conf").write_text(text)
        # No agent is asked: one that runs on this host is none of this Glance's.
        (self.home / "evscrub.conf").write_text(
            f"[DEFAULT]\nglance_config_files = {self.home}/glance-api.conf\n"
            "[listener]\ntopics = evscrub\n[status]\nlisten = none\n"
            f"[DEFAULT]\n{delay}{own}"
        )
        done = commands.run("check", "--config-file", self.home / "evscrub.conf", *arguments)
        said = done.stdout + done.stderr
        assert "secret" not in said
        assert KEY not in said
        assert "file://" not in said
        return Checked(done.returncode, done.stdout, done.stderr)

    def sql(self, *statements: str) -> None:
        """Run statements as the server's root, the only user that may grant.

        :param statements: with `{db}` for the database's name.
        """
        socket = self.mariadb.directory / "socket"
        engine = sa.create_engine(
            f"mysql+pymysql://root@localhost/{self.database}?unix_socket={socket}",
            poolclass=NullPool,
        )
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(
                    statement.replace("%", "%%").replace("{db}", str(self.database))
                )
        engine.dispose()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Restore the current rows of the images at the end."""
        tables = ("images", "image_locations")
        self.sql(*(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}" for table in tables))
        try:
            yield
        finally:
            for table in tables:
                self.sql(
                    "SET foreign_key_checks = 0",
                    f"DELETE FROM {table}",
                    f"INSERT INTO {table} SELECT * FROM kept_{table}",
                    f"DROP TABLE kept_{table}",
                )


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory,
    rabbitmq: RabbitMQ,
    mariadb: MariaDB,
    glance_python: str,
) -> Iterator[Deployment]:
    """Return a working deployment; a test that breaks it must repair it."""
    made = Deployment(tmp_path_factory.mktemp("check"), rabbitmq, mariadb, glance_python)
    with made.process:
        made.fill()
        with made.reader():
            yield made


def test_correct_deployment_passes_all_checks(deployment: Deployment) -> None:
    """No check fails, and the notes are correct."""
    checked = deployment.check(own="scrub_time = 3600\n")
    assert (checked.code, checked.bad()) == (SUCCESS, [])
    # It was deleted when the tests that share it began.
    backlog = r"1 image awaits scrubbing; the first is due in ([345]\d min|1 h)\b"
    assert re.search(backlog, checked.details("Backlog"))
    assert checked.details("Stores") == "Loaded: cheap, fast."
    assert checked.details("Locations") == "4 locations checked."


def test_default_output_is_a_table(deployment: Deployment) -> None:
    """Without --json the output is oslo.upgradecheck's table."""
    checked = deployment.check(own="scrub_time = 3600\n", arguments=())
    assert checked.code == SUCCESS
    assert "| Check: Delayed delete  " in checked.output
    assert "| Result: Success  " in checked.output


@pytest.mark.parametrize(
    ("old", "new", "check", "said"),
    [
        ("delayed_delete = True", "", "Delayed delete", "Set [DEFAULT] delayed_delete = True in"),
        ("driver = messagingv2", "driver = noop", "Notifications", "driver is noop"),
        ("driver = messagingv2", "", "Notifications", "driver is not set"),
        ("topics = notifications,evscrub", "topics = a", "Notifications", "topics = a,evscrub in"),
        ("rabbit://guest", "rabit://guest", "Message bus", "cannot be used"),
        ("guest:guest@", "guest:topsecret@", "Message bus", "AccessRefused"),
        ("0.1:{rabbit}/", "0.1:1/", "Message bus", "127.0.0.1:1 (ConnectionRefused"),
        ("0.1:{rabbit}/{vhost}", "0.1:{rabbit}/nosuch", "Message bus", "vhost nosuch not found"),
        ("{url}", "", "Database", "is not set"),
        ("evscrub:secret@127.0.0.1:", "evscrub:secret/", "Database", "is not a URL"),
        ("evscrub:secret@", "evscrub:topsecret@", "Database", "Access denied"),
        ("0.1:{maria}/", "0.1:1/", "Database", "Connection refused"),
        ("mysql+pymysql", "mysql+mysqldb", "Database", "needs the Python module MySQLdb"),
        (KEY, KEY[::-1], "Locations", "metadata_encryption_key"),
        ("fast:file,cheap:file", "fast:file,cheap:rbd", "Stores", "modules rados and rbd, not"),
        ("fast:file,cheap:file", "fast:file,cheap:cinder", "Stores", "os_brick and oslo_privsep"),
        ("fast:file,cheap:file", "fast:file,cheap:vmware", "Stores", "oslo_vmware, not installed"),
        ("fast:file,cheap:file", "fast:file,cheap:swift", "Stores", "auth_address is required"),
        ("fast:file,cheap:file", "fast:file,cheap:s3", "Stores", "Could not find s3_store_host"),
        ("fast:file,cheap:file", "fast:file,cheap:flie", "Stores", "did you mean file"),
        (
            "fast:file,cheap:file",
            "fast:file,os_glance_tasks_store:file",
            "Stores",
            "Glance reserves names that begin with os_glance_",
        ),
        (
            "enabled_backends = fast:file,cheap:file",
            f"enabled_backends = fast:file,cheap:swift\n{MULTI_TENANT}\n[DEFAULT]",
            "Stores",
            "set swift_store_multi_tenant = False",
        ),
        ("{home}/glance/data/cheap", "/proc/sys", "Stores", "is not writable"),
        ("{home}/glance/data/cheap", "/nosuch", "Stores", "directory /nosuch does not exist"),
    ],
)
def test_error_in_glance_conf_fails_one_check(
    deployment: Deployment, old: str, new: str, check: str, said: str
) -> None:
    """A single error in glance-api.conf fails a single check, which explains it."""
    values = {
        "home": deployment.home,
        "rabbit": deployment.rabbitmq.port,
        "vhost": deployment.rabbitmq.vhost,
        "maria": deployment.mariadb.port,
        "url": deployment.url,
    }
    checked = deployment.check((old.format(**values), new.format(**values)))
    assert (checked.code, checked.bad()) == (FAILURE, check.split(" + "))
    assert said in checked.details(check.partition(" + ")[0])


@pytest.mark.parametrize(
    ("own", "code", "check", "said"),
    [
        ("disabled_notifications = x,image.delete", 2, "Notifications", "has image.delete"),
        ("control_exchange = nova", 2, "Notifications", "Set [listener] exchange = nova"),
        ("scrub_time = 3888000", 1, "scrub_time and db purge", "kept for 45 days"),
        (
            "[listener]\ntopics = notifications",
            1,
            "Exchange and queues + Unread queues",
            "a topic of its own",
        ),
        (
            "[oslo_messaging_rabbit]\namqp_durable_queues = True",
            2,
            "Exchange and queues",
            "inequivalent arg 'durable' for queue 'evscrub.info'",
        ),
        (
            "[oslo_messaging_rabbit]\nrabbit_quorum_queue = True",
            2,
            "Exchange and queues",
            "of another type",
        ),
    ],
)
def test_wrong_option_is_reported(
    deployment: Deployment, own: str, code: int, check: str, said: str
) -> None:
    """A single wrong option is explained."""
    checked = deployment.check(own=own + "\n")
    assert (checked.code, checked.bad()) == (code, check.split(" + "))
    assert said in checked.details(check.partition(" + ")[0])


def test_check_creates_nothing_on_the_bus(deployment: Deployment) -> None:
    """A missing queue is still missing after the check."""
    checked = deployment.check(own="[listener]\ntopics = notifications\npool = mine\n")
    # The agents would listen to the pool alone, and Glance sends to the topic all the same.
    assert (checked.code, checked.bad()) == (WARNING, ["Unread queues"])
    assert "Nobody reads evscrub.info" in checked.details("Unread queues")
    assert "The queue mine does not exist yet" in checked.details("Exchange and queues")
    assert "mine" not in deployment.rabbitmq.list_queues()


def test_unread_topic_is_reported(deployment: Deployment, rabbitmq: RabbitMQ) -> None:
    """Its queue keeps growing, and so do those of evscrub's topic at other priorities."""
    with Connection(rabbitmq.url.replace("rabbit:", "pyamqp:")) as connection:
        made = [
            Queue(name, durable=False, channel=connection.default_channel)
            for name in ("ceilometer.info", "evscrub.error", "evscrub.warn")
        ]
        for queue in made:
            queue.declare()
        producer = connection.Producer()
        for name in ("ceilometer.info", "evscrub.error"):
            producer.publish({}, routing_key=name)
        topics = ("topics = notifications,evscrub", "topics = notifications,evscrub,ceilometer")
        try:
            checked = deployment.check(topics)
        finally:
            for queue in made:
                queue.delete()
    assert (checked.code, checked.bad()) == (WARNING, ["Unread queues"])
    said = checked.details("Unread queues")
    assert "Nobody reads ceilometer.info, where 1 message waits" in said
    assert "remove ceilometer from" in said
    assert "Nobody reads evscrub.error" in said
    assert "max-length" in said
    assert "notifications" not in said.replace("oslo_messaging_notifications", "")
    assert "evscrub.warn" not in said  # nothing is in it


def test_one_of_two_unreachable_brokers_is_a_warning(deployment: Deployment) -> None:
    """One broker is enough, but an operator should know."""
    here = f"guest:guest@127.0.0.1:{deployment.rabbitmq.port}"
    checked = deployment.check((here, f"guest:guest@127.0.0.1:1,{here}"))
    assert (checked.code, checked.bad()) == (WARNING, ["Message bus"])
    assert "127.0.0.1:1 (ConnectionRefusedError" in checked.details("Message bus")


def test_missing_tables_and_columns_are_reported(deployment: Deployment) -> None:
    """The database is not Glance's: tables or columns are missing."""
    empty = deployment.mariadb.new_database("empty")
    checked = deployment.check((deployment.url, empty))
    assert (checked.code, checked.bad()) == (FAILURE, ["Schema"])
    assert "The table images is missing" in checked.details("Schema")
    there = make_url(empty).database
    deployment.sql(f"CREATE TABLE {there}.images LIKE {{db}}.images")
    deployment.sql(f"CREATE TABLE {there}.image_locations LIKE {{db}}.image_locations")
    deployment.sql(f"ALTER TABLE {there}.image_locations DROP COLUMN updated_at")
    checked = deployment.check((deployment.url, empty))
    assert "The table image_locations lacks updated_at" in checked.details("Schema")


def test_missing_privileges_are_reported(deployment: Deployment) -> None:
    """The user lacks a privilege, or the server is read-only."""
    deployment.sql(
        "CREATE OR REPLACE USER little@'%' IDENTIFIED BY 'secret'",
        "GRANT SELECT ON {db}.* TO little@'%'",
        "GRANT UPDATE ON {db}.images TO little@'%'",
    )
    little = ("evscrub:secret@", "little:secret@")
    checked = deployment.check(little)
    assert (checked.code, checked.bad()) == (FAILURE, ["Privileges"])
    assert "on image_locations (1142 UPDATE command denied" in checked.details("Privileges")
    assert "on images (" not in checked.details("Privileges")
    deployment.sql("GRANT UPDATE ON {db}.* TO little@'%'")
    assert deployment.check(little).code == SUCCESS
    deployment.sql("SET GLOBAL read_only = 1")
    try:
        assert "--read-only" in deployment.check(little).details("Privileges")
    finally:
        deployment.sql("SET GLOBAL read_only = 0")


def test_clock_difference_is_reported(deployment: Deployment) -> None:
    """The clocks of the database and of this host differ."""
    deployment.sql(
        "CREATE OR REPLACE USER late@'%' IDENTIFIED BY 'secret'",
        "GRANT SELECT, UPDATE ON {db}.* TO late@'%'",
        # Not for those who, like the others, are administrators.
        "SET GLOBAL init_connect = 'SET timestamp = UNIX_TIMESTAMP() - 600'",
    )
    try:
        checked = deployment.check(("evscrub:secret@", "late:secret@"))
    finally:
        deployment.sql("SET GLOBAL init_connect = ''")
    assert (checked.code, checked.bad()) == (WARNING, ["Clock"])
    assert "10 min" in checked.details("Clock")
    assert "ahead of the database's" in checked.details("Clock")


def test_locations_in_a_disabled_store_are_reported(deployment: Deployment) -> None:
    """Images are in a store that this configuration lacks."""
    checked = deployment.check(
        ("fast:file,cheap:file", "cheap:file"),
        ("default_backend = fast", "default_backend = cheap"),
    )
    assert (checked.code, checked.bad()) == (FAILURE, ["Locations"])
    assert "'fast' is not in" in checked.details("Locations")


def test_directory_from_backend_defaults_is_checked(deployment: Deployment) -> None:
    """The directory that Glance uploads to is checked, not the driver's default."""
    directory = f"filesystem_store_datadir = {deployment.home}/glance/data/cheap"
    text = deployment.glance_conf.read_text()
    assert directory in text
    defaults = f"[backend_defaults]\n{directory}\n"
    checked = deployment.check((directory, ""), own=f"scrub_time = 3600\n{defaults}")
    assert (checked.code, checked.bad()) == (SUCCESS, [])
    checked = deployment.check((directory, ""), own=f"{defaults.replace('cheap', 'nosuch')}")
    assert (checked.code, checked.bad()) == (FAILURE, ["Stores"])
    assert "does not exist on this host" in checked.details("Stores")
    assert "Loaded: fast." in checked.details("Stores")


@pytest.mark.parametrize("default", ["", "default_backend = elsewhere"])
def test_invalid_default_store_is_reported(deployment: Deployment, default: str) -> None:
    """Glance does not start with it, but evscrub does."""
    checked = deployment.check(("default_backend = fast", default))
    assert (checked.code, checked.bad()) == (WARNING, ["Stores"])
    said = "elsewhere" if default else "not set"
    assert f"default_backend is {said}" in checked.details("Stores")
    assert "one of cheap, fast" in checked.details("Stores")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("fast:file,cheap:file", "fast:file,fast:s3", "Duplicate key fast"),
        ("fast:file,cheap:file", "fast", "enabled_backends"),
        (KEY, KEY[:-1], "must be 16, 24 or 32 bytes long, and is 15"),
        (KEY, KEY + "é", "must be 16, 24 or 32 bytes long, and is 18"),
    ],
)
def test_unreadable_values_are_reported(
    deployment: Deployment, old: str, new: str, said: str
) -> None:
    checked = deployment.check((old, new))
    assert (checked.code, checked.bad()) == (FAILURE, ["Configuration"])
    assert said in checked.details("Configuration")


def test_missing_directory_is_not_created(deployment: Deployment) -> None:
    """Loading a file store would create its directory and hide that it is not mounted."""
    there, away = (deployment.home / "glance/data" / name for name in ("cheap", "away"))
    there.rename(away)
    checked = deployment.check()
    assert (checked.code, checked.bad()) == (FAILURE, ["Stores"])
    assert not there.exists()
    away.rename(there)


def test_empty_directory_of_an_unmounted_store_is_reported(deployment: Deployment) -> None:
    """The directory exists and is empty."""
    there, away = (deployment.home / "glance/data" / name for name in ("fast", "away"))
    there.rename(away)
    there.mkdir()
    checked = deployment.check()
    shutil.rmtree(there)
    away.rename(there)
    assert (checked.code, checked.bad()) == (FAILURE, ["Active images"])
    assert "its file system is mounted here" in checked.details("Active images")


def test_another_file_system_is_mounted(deployment: Deployment) -> None:
    """The directory has only other files."""
    there, away = (deployment.home / "glance/data" / name for name in ("fast", "away"))
    there.rename(away)
    there.mkdir()
    (there / "other").write_bytes(b"data")
    checked = deployment.check()
    shutil.rmtree(there)
    away.rename(there)
    assert (checked.code, checked.bad()) == (FAILURE, ["Active images"])
    assert "Active images are there: fast." in deployment.check().details("Active images")


def test_uploads_to_the_mount_point_of_a_missing_file_system(deployment: Deployment) -> None:
    there, away = (deployment.home / "glance/data" / name for name in ("fast", "away"))
    there.rename(away)
    there.mkdir()
    with deployment.kept(), GlanceClient(deployment.process.url) as client:
        client.upload(client.create("later"), b"data")
        checked = deployment.check()
    shutil.rmtree(there)
    away.rename(there)
    assert (checked.code, checked.bad()) == (WARNING, ["Active images"])
    assert "none of the oldest ones" in checked.details("Active images")


def test_overdue_and_damaged_images_are_reported(deployment: Deployment) -> None:
    """Images that are long overdue, and images that only a person can judge."""
    long_due, restored, broken_off = deployment.images[:3]
    with deployment.kept():
        with GlanceClient(deployment.process.url) as client:
            client.delete(restored)
        deployment.sql(
            "UPDATE images SET deleted_at = UTC_TIMESTAMP() - INTERVAL 3 HOUR"
            f" WHERE id = '{long_due}'",
            "UPDATE images SET status = 'active', deleted = 0, deleted_at = NULL"
            f" WHERE id = '{restored}'",
            f"UPDATE images SET status = 'pending_delete' WHERE id = '{broken_off}'",
        )
        checked = deployment.check()
        assert (checked.code, checked.bad()) == (WARNING, ["Backlog", "Damaged images"])
        assert "the oldest has been due for 3 h" in checked.details("Backlog")
        for image in (restored, broken_off):
            assert image in checked.details("Damaged images")
        assert "held" not in checked.details("Backlog")
        # As a failed import leaves it.
        deployment.sql(f"UPDATE images SET status = 'importing' WHERE id = '{restored}'")
        assert restored not in deployment.check().details("Damaged images")
        deployment.sql(f"UPDATE images SET deleted_at = NULL WHERE id = '{long_due}'")
        held = deployment.check().details("Backlog")
        assert held == "1 image is held. No image awaits scrubbing."
        deployment.sql(
            "UPDATE images SET deleted_at = UTC_TIMESTAMP() - INTERVAL 3 HOUR"
            f" WHERE id = '{long_due}'"
        )
        # As an agent leaves what it failed to delete.
        deployment.sql(f"UPDATE images SET status = 'deleted' WHERE id = '{long_due}'")
        assert "the oldest has been due for 3 h" in deployment.check().details("Backlog")


def test_unset_scrub_time_is_reported(deployment: Deployment) -> None:
    """An unset delay is reported with its effect."""
    checked = deployment.check(delay="")
    assert (checked.code, checked.bad()) == (WARNING, ["scrub_time and db purge"])
    assert "scrub_time is set nowhere" in checked.details("scrub_time and db purge")
    assert deployment.check().code == SUCCESS


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("[scrubber]\nrate = fast\n", "[scrubber] rate in "),
        ("scrub_tme = 86400\n", "did you mean scrub_time?"),
    ],
)
def test_configuration_errors_are_the_only_failed_check(
    deployment: Deployment, own: str, said: str
) -> None:
    """Configuration errors are reported as one failed check."""
    checked = deployment.check(own=own)
    assert (checked.code, checked.bad()) == (FAILURE, ["Configuration"])
    assert said in checked.details("Configuration")
    assert not checked.errors
