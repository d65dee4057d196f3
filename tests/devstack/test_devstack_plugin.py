# SPDX-License-Identifier: Apache-2.0
"""The DevStack plugin, run by DevStack's own functions, with a real Glance and a real agent.

EVSCRUB_DEVSTACK_DIR names a checkout of DevStack; without it a small stand-in is used. Either is
copied to a temporary folder, into which everything goes: ``sudo`` does nothing outside of it,
packages are noted and not installed, and ``systemctl`` is one of ours that really runs the units.
"""

import configparser
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evscrub.demo.glance_config import PASTE
from tests.forking import EvscrubPython, GlancePython
from tests.functional.glance_tables import SQLiteTemplate
from tests.servers import RabbitMQ, free_port, wait_until
from tests.sharing import shared

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
AGENT = "devstack@evscrub.service"
GLANCE = "devstack@g-api.service"

LOCALRC = """\
DEST={root}/opt
DATA_DIR={root}/opt/data
STACK_USER={user}
HOST_IP=127.0.0.1
SERVICE_HOST=127.0.0.1
RABBIT_HOST=127.0.0.1
RABBIT_PASSWORD=secret
ADMIN_PASSWORD=secret
DATABASE_PASSWORD=secret
SERVICE_PASSWORD=secret
ENABLED_SERVICES=key,g-api,rabbit,mysql
SERVICE_TIMEOUT=240
LOG_COLOR=False
PIP_UPGRADE=False
GLANCE_CONF_DIR={root}/etc/glance
EVSCRUB_CONF_DIR={root}/etc/evscrub
EVSCRUB_SCRUB_TIME=2
EVSCRUB_SWEEP_INTERVAL=3600
EVSCRUB_STATUS_LISTEN=127.0.0.1:{status_port}
{localrc}
enable_plugin evscrub https://localhost/evscrub
"""

#: What turns the Glance that DevStack configures into one that runs here.
LOCAL_CONF = """\
[[post-config|$GLANCE_API_CONF]]
[DEFAULT]
transport_url = {transport_url}
node_staging_uri = file://{root}/opt/staging
image_cache_dir = {root}/opt/cache
[database]
connection = sqlite:///{root}/glance.sqlite
[paste_deploy]
flavor =
config_file = {root}/paste.ini
[oslo_concurrency]
lock_path = {root}/opt/lock
"""

NEIGHBOR = """\
if [[ "$1" == "stack" && "$2" == "post-config" ]]; then
    iniset "$GLANCE_API_CONF" oslo_messaging_notifications topics notifications,neighbor
fi
"""

GLANCE_SERVER = """\
import sys
from pathlib import Path

sys.path.insert(0, "{repository}")
from tests.glance_process import serve

serve(Path(sys.argv[sys.argv.index("--ini") + 1]).parent, {port})
"""

CURL = """\
import http.client
import sys

try:
    connection = http.client.HTTPConnection("127.0.0.1", {port}, timeout=60)
    connection.request("GET", "/v2/images?limit=1")
    print(connection.getresponse().status, end="")
except (OSError, http.client.HTTPException):
    sys.exit(7)
"""

OPENSTACK = """\
import argparse
import http.client
import json
import sys

parser = argparse.ArgumentParser()
parser.add_argument("noun", choices=["image"])
parser.add_argument("verb", choices=["create", "show", "delete"])
for name in ("--disk-format", "--container-format", "--file", "--format", "--column"):
    parser.add_argument(name)
parser.add_argument("name")
arguments = parser.parse_args()
connection = http.client.HTTPConnection("127.0.0.1", {port}, timeout=60)


def ask(method, path, body=None, kind="application/json"):
    connection.request(method, "/v2/images" + path, body, {{"Content-Type": kind}})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status >= 300:
        sys.exit(f"{{method}} {{path}}: {{answer.status}} {{said!r}}")
    return json.loads(said) if said else None


if arguments.verb == "create":
    image = {{
        "name": arguments.name,
        "disk_format": arguments.disk_format,
        "container_format": arguments.container_format,
    }}
    image_id = ask("POST", "", json.dumps(image))["id"]
    with open(arguments.file, "rb") as file:
        ask("PUT", f"/{{image_id}}/file", file.read(), "application/octet-stream")
elif arguments.verb == "show":
    print(*(image["id"] for image in ask("GET", f"?name={{arguments.name}}")["images"]))
else:
    ask("DELETE", f"/{{arguments.name}}")
"""


class DevStack:
    """A DevStack in a temporary folder.

    :param localrc: further lines of the localrc section.
    :param local_conf: further sections of local.conf.
    :param forked: whether Python programs are forked from one that has their imports, which
        costs less, or started as where DevStack runs.
    """

    def __init__(
        self,
        root: Path,
        transport_url: str,
        localrc: str = "",
        local_conf: str = "",
        *,
        forked: bool = True,
    ) -> None:
        self._python = str(shared(EvscrubPython).python) if forked else sys.executable
        self._glance_python = str(shared(GlancePython).python) if forked else sys.executable
        self.root = root
        self.port = free_port()
        self.top = root / "devstack"
        self.glance_conf = root / "etc/glance/glance-api.conf"
        self.conf = root / "etc/evscrub/evscrub.conf"
        self.units = root / "systemd"
        self._transport_url = transport_url
        self._local_conf = local_conf
        for directory in ("systemd", "etc", "bin", "opt/data/venv/bin"):
            (root / directory).mkdir(parents=True)
        shutil.copytree(
            os.environ.get("EVSCRUB_DEVSTACK_DIR", HERE / "standin"),
            self.top,
            ignore=shutil.ignore_patterns(".git"),
        )
        (root / "opt/evscrub").symlink_to(REPOSITORY)
        (root / "paste.ini").write_text(PASTE)
        shared(SQLiteTemplate).copy("glance", root)
        self._write_programs()
        self._write_what_is_cloned()
        self.write_local_conf(localrc)

    def write_local_conf(self, localrc: str) -> None:
        """Write local.conf with these further lines of localrc."""
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True)
        values = {
            "root": self.root,
            "user": user.stdout.strip(),
            "localrc": localrc,
            "status_port": free_port(),
            "transport_url": self._transport_url,
        }
        (self.top / "local.conf").write_text(
            "[[local|localrc]]\n"
            + LOCALRC.format(**values)
            + LOCAL_CONF.format(**values)
            + self._local_conf
        )

    def add_neighbor(self) -> str:
        """Make a plugin that sets Glance's topics; returns the line that enables it."""
        directory = self.root / "opt/neighbor/devstack"
        directory.mkdir(parents=True)
        (directory / "plugin.sh").write_text(NEIGHBOR)
        return "enable_plugin neighbor https://localhost/neighbor"

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run phases.sh; returns what it prints."""
        (self.root / "calls").write_text("")
        returned, output = self._bash(HERE / "phases.sh", str(self.top), *arguments)
        assert returned == code, output[-6000:]
        return output

    def exercise(self) -> str:
        """Run exercise.sh; returns what it prints."""
        returned, output = self._bash(REPOSITORY / "devstack/exercise.sh")
        assert returned == 0, output[-6000:] + self.journal()
        return output

    def systemctl(self, *arguments: str) -> int:
        """Run our systemctl; returns its exit code."""
        return subprocess.run(
            [self.root / "bin/systemctl", *arguments], env=self._environment, check=False
        ).returncode

    def stop_all(self) -> None:
        """Stop whatever runs."""
        self.systemctl("stop", *(unit.name for unit in self.units.iterdir()))

    @property
    def calls(self) -> list[str]:
        """What was asked of sudo and pip in the last run."""
        return (self.root / "calls").read_text().splitlines()

    def pid(self, unit: str) -> int:
        """The process that a unit was last started as."""
        return int((self.root / f"state/{unit}.pid").read_text())

    def journal(self, unit: str = AGENT) -> str:
        """What a unit printed, without its colors."""
        return re.sub(r"\x1b\[[0-9;]*m", "", (self.root / "journal" / unit).read_text())

    def glance_option(self, section: str, option: str) -> str | None:
        """An option as it stands in glance-api.conf."""
        return read_ini(self.glance_conf).get(section, {}).get(option)

    def traces(self) -> list[Path]:
        """Everything named or naming evscrub, where a clean should leave nothing."""
        places = [self.root / "etc", self.units, self.root / "state"]
        files = [path for place in places for path in place.rglob("*")]
        return [
            path
            for path in files
            if "evscrub" in path.name or (path.is_file() and "evscrub" in path.read_text())
        ]

    @property
    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        return kept | {
            "PATH": f"{self.root}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PHASES_ROOT": str(self.root),
            "PHASES_SYSTEMD_DIR": str(self.units),
            "DEVSTACK_DIR": str(self.top),
            "GRACE": "240",  # the machine may be busy
        }

    def _bash(self, *command: str | Path) -> tuple[int, str]:
        """Run a bash script; returns its exit code and what it prints."""
        output = self.root / "output"
        with output.open("w") as file:
            done = subprocess.run(
                ["bash", *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=900,
                cwd=self.root,
                env=self._environment,
                check=False,
            )
        return done.returncode, output.read_text()

    def _write_programs(self) -> None:
        values = {"root": self.root, "port": self.port, "repository": REPOSITORY}
        self._write_script("bin/sudo", f'exec bash {HERE / "sudo.sh"} "$@"')
        light = f"{sys.executable} -IS"  # they need nothing but the standard library
        for name, text, python in (
            ("uwsgi", GLANCE_SERVER.format(**values), self._glance_python),
            ("curl", CURL.format(**values), light),
            ("openstack", OPENSTACK.format(**values), light),
            ("systemctl", (HERE / "systemctl.py").read_text(), light),
        ):
            (self.root / "bin" / f"{name}_program.py").write_text(text)
            self._write_script(
                f"bin/{name}", f'exec {python} {self.root}/bin/{name}_program.py "$@"'
            )
        for name in ("apt-get", "a2enmod", "a2ensite"):
            self._write_script(f"bin/{name}", f'echo "{name} $*" >> {self.root}/calls')
        self._write_script(
            "bin/lsb_release", "case $1 in -i) echo Debian ;; *) echo bookworm ;; esac"
        )
        venv = "opt/data/venv/bin"
        self._write_script(f"{venv}/pip", f'echo "venv-pip $*" >> {self.root}/calls')
        self._write_script(f"{venv}/python3", f'exec {self._python} "$@"')
        for directory in (venv, "bin"):
            for name, module in (
                ("evscrub", "evscrub"),
                ("oslo-config-generator", "oslo_config.generator"),
            ):
                self._write_script(f"{directory}/{name}", f'exec {self._python} -m {module} "$@"')

    def _write_script(self, path: str, command: str) -> None:
        script = self.root / path
        script.write_text(f"#!/bin/sh\n{command}\n")
        script.chmod(0o755)

    def _write_what_is_cloned(self) -> None:
        """Make the files of Glance's repository that DevStack copies."""
        etc = self.root / "opt/glance/etc"
        (etc / "metadefs").mkdir(parents=True)
        for name in ("glance-api-paste.ini", "schema-image.json", "metadefs/none.json"):
            (etc / name).write_text("{}")


Start = Callable[..., DevStack]


def read_ini(path: Path) -> dict[str, dict[str, str]]:
    """Read a configuration; an option that is there twice is an error."""
    ini = configparser.RawConfigParser(default_section="", strict=True)
    ini.read(path)
    return {section: dict(ini.items(section)) for section in ini.sections()}


@pytest.fixture
def rabbitmq() -> RabbitMQ:
    """Return the run's RabbitMQ as seen from a virtual host of the test's own."""
    return shared(RabbitMQ).new_vhost()


@pytest.fixture
def devstack(tmp_path: Path, rabbitmq: RabbitMQ) -> Iterator[Start]:
    """Return a function that makes a DevStack; the test's end stops what runs in it."""
    made: list[DevStack] = []

    def make(localrc: str = "", local_conf: str = "", *, forked: bool = True) -> DevStack:
        root = tmp_path / f"{len(made)}"
        made.append(DevStack(root, rabbitmq.url, localrc, local_conf, forked=forked))
        return made[-1]

    yield make
    for each in made:
        each.stop_all()


def test_from_stack_to_clean(devstack: Start) -> None:
    """The whole way: stack, use, stack again, unstack, clean."""
    there = devstack(forked=False)
    output = there.run("stack")

    # Glance has what evscrub needs, and what DevStack gave it.
    assert there.glance_option("DEFAULT", "delayed_delete") == "True"
    notifications = read_ini(there.glance_conf)["oslo_messaging_notifications"]
    assert notifications == {"driver": "messagingv2", "topics": "notifications,evscrub"}
    # Our configuration is a sample with what was set on top, for the stack user alone.
    own = read_ini(there.conf)
    assert own["DEFAULT"]["glance_config_files"] == str(there.glance_conf)
    assert own["DEFAULT"]["scrub_time"] == "2"
    assert own["listener"]["topics"] == "evscrub"
    assert own["scrubber"] == {"concurrency": "16", "rate": "0"}
    assert own["sweep"] == {"interval": "3600"}
    assert own["coordination"] == {}
    assert "#claim_timeout = 120" in there.conf.read_text()
    assert stat.S_IMODE(there.conf.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(there.conf.stat().st_mode) == 0o600
    # It was installed where Glance is, and checked.
    installs = [call for call in there.calls if " install " in call and "/opt/evscrub" in call]
    assert len(installs) == 1
    assert re.search(r"^venv-pip install .*-e \S*/opt/evscrub$", installs[0])
    assert "| evscrub check" in output
    assert "Result: Failure" not in output
    assert f"sudo systemctl enable {AGENT}" in there.calls
    assert there.systemctl("is-active", AGENT) == 0

    # It goes by the bus: the sweep comes once an hour.
    assert "Gone after" in there.exercise()

    assert there.systemctl("reload", AGENT) == 0
    wait_until(lambda: "Configuration reloaded" in there.journal(), 60, "the agent reloads")

    # A second time: the same settings, a new agent, the same Glance.
    before = read_ini(there.conf), read_ini(there.glance_conf)["oslo_messaging_notifications"]
    pids = there.pid(AGENT), there.pid(GLANCE)
    there.run("stack")
    again = read_ini(there.conf), read_ini(there.glance_conf)["oslo_messaging_notifications"]
    assert again == before
    assert there.pid(AGENT) != pids[0]
    assert there.pid(GLANCE) == pids[1]
    assert there.systemctl("is-active", AGENT) == 0

    there.run("unstack")
    assert there.systemctl("is-active", AGENT) != 0
    assert there.systemctl("is-enabled", AGENT) != 0
    assert there.journal().rstrip().endswith("Stopped")
    assert there.conf.exists()

    there.run("clean")
    assert there.glance_option("DEFAULT", "delayed_delete") is None
    # DevStack's own setting stays.
    assert read_ini(there.glance_conf)["oslo_messaging_notifications"] == {"driver": "messagingv2"}
    assert there.traces() == []
    assert [call for call in there.calls if "uninstall" in call] == [
        "venv-pip uninstall -y evscrub"
    ]
    there.run("clean")


@pytest.mark.parametrize("after", [False, True])
def test_topics_of_others_are_kept(devstack: Start, *, after: bool) -> None:
    """Another plugin sets Glance's topics, before ours or after it."""
    there = devstack()
    enable = there.add_neighbor()
    there.write_local_conf(
        f"DEVSTACK_PLUGINS+=,neighbor; GITDIR[neighbor]={there.root}/opt/neighbor"
        if not after
        else ""
    )
    if after:
        local_conf = there.top / "local.conf"
        line = "enable_plugin evscrub https://localhost/evscrub\n"
        local_conf.write_text(local_conf.read_text().replace(line, line + enable + "\n"))
    output = there.run("stack")
    section = "oslo_messaging_notifications"
    assert there.glance_option(section, "topics") == "notifications,neighbor,evscrub"
    assert ("Restarting Glance for evscrub" in output) is after
    there.exercise()
    there.run("stack")
    assert there.glance_option(section, "topics") == "notifications,neighbor,evscrub"
    there.run("unstack")
    there.run("clean")
    assert there.glance_option(section, "topics") == "notifications,neighbor"
    assert there.traces() == []


def test_other_settings_the_second_time(devstack: Start) -> None:
    """A restack with other settings leaves nothing of the first topic, and adds a coordinator."""
    there = devstack()
    there.run("stack")
    pid = there.pid(GLANCE)
    there.write_local_conf(
        'EVSCRUB_TOPIC=scrub\nEVSCRUB_RATE=50\nEVSCRUB_COORDINATION_URL="file://$DATA_DIR/evscrub"'
    )
    there.run("stack")
    assert there.glance_option("oslo_messaging_notifications", "topics") == "notifications,scrub"
    assert there.pid(GLANCE) != pid
    there.exercise()
    assert "Using 1 of the limits that the group evscrub.default shares" in there.journal()


def test_glance_options_come_back(devstack: Start) -> None:
    """Clean puts back what Glance had, not what DevStack would have."""
    there = devstack()
    there.glance_conf.parent.mkdir()
    section = "oslo_messaging_notifications"
    there.glance_conf.write_text(
        f"[DEFAULT]\ndelayed_delete = false\n[{section}]\ntopics = audit, evscrub\n"
    )
    there.run("stack")
    assert there.glance_option("DEFAULT", "delayed_delete") == "True"
    assert there.glance_option(section, "topics") == "audit, evscrub"
    there.run("unstack")
    there.run("clean")
    assert there.glance_option("DEFAULT", "delayed_delete") == "false"
    assert there.glance_option(section, "topics") == "audit, evscrub"  # it was there before us


@pytest.mark.parametrize("driver", ["noop", None])
def test_driver_is_set_where_devstack_does_not(devstack: Start, driver: str | None) -> None:
    """The driver is added where there is none that reaches the bus, and taken away again."""
    there = devstack()
    there.glance_conf.parent.mkdir()
    section = "oslo_messaging_notifications"
    there.glance_conf.write_text(f"[{section}]\n" + (f"driver = {driver}\n" if driver else ""))
    there.conf.parent.mkdir()
    there.run("eval", "configure_glance_for_evscrub")
    lines = there.glance_conf.read_text().splitlines()
    drivers = [line for line in lines if line.startswith("driver")]
    assert drivers == [*([f"driver = {driver}"] if driver else []), "driver = messagingv2"]
    there.run("clean")
    assert there.glance_option(section, "driver") == driver


def test_failed_check_ends_the_stack(devstack: Start) -> None:
    """What keeps evscrub from its work is told by stack.sh, not found out later."""
    there = devstack(local_conf="[[post-config|$EVSCRUB_CONF]]\n[listener]\ntopics = elsewhere\n")
    output = there.run("stack", code=1)
    assert "evscrub check found problems that keep it from working" in output
    assert "evscrub listens to the topic elsewhere" in re.sub(r"[ |\n]+", " ", output)


def test_failed_install_ends_the_stack(devstack: Start) -> None:
    """The plugin is safe under errexit: what fails in it is not passed over."""
    there = devstack()
    (there.root / "opt/data/venv/bin/pip").write_text("#!/bin/sh\nexit 7\n")
    there.run("stack", code=7)
    assert not there.conf.exists()


def test_without_the_global_venv(devstack: Start) -> None:
    """Without the global venv the system's Python is used."""
    there = devstack("GLOBAL_VENV=False")
    assert "/usr/local/bin\n" in there.run("eval", 'echo "$EVSCRUB_BIN_DIR"')
    there.write_local_conf(f"GLOBAL_VENV=False\nEVSCRUB_BIN_DIR={there.root}/bin")
    there.run("stack")
    installs = [call for call in there.calls if " install " in call and "/opt/evscrub" in call]
    assert len(installs) == 1
    assert re.search(r"^sudo -H .*python\S* -m pip install .*-e \S*/opt/evscrub$", installs[0])
    there.run("unstack")
    there.run("clean")
    uninstalls = [call for call in there.calls if "uninstall" in call]
    assert len(uninstalls) == 1
    assert re.search(r"^sudo -H .*python\S* -m pip uninstall -y evscrub$", uninstalls[0])
    assert there.traces() == []


def test_disabled(devstack: Start) -> None:
    """disable_service leaves everything as it is."""
    there = devstack("disable_service evscrub")
    there.run("stack")
    assert there.traces() == []
    assert there.glance_option("DEFAULT", "delayed_delete") is None
    assert not [call for call in there.calls if "/opt/evscrub" in call]


def test_glance_is_needed(devstack: Start) -> None:
    """Without glance-api there is nothing to run beside."""
    there = devstack("disable_service g-api")
    assert "enable g-api" in there.run("stack", code=1)


@pytest.mark.parametrize(
    ("localrc", "extras"),
    [
        ("", ""),
        ("enable_service s-proxy s-object", "swift"),
        ("GLANCE_USE_S3=True", "s3"),
        ("USE_CINDER_FOR_GLANCE=True", "cinder"),
        ("enable_service s-proxy\nGLANCE_USE_S3=True", "swift,s3"),
        ("EVSCRUB_EXTRAS=vmware\nGLANCE_USE_S3=True", "vmware"),
        ("enable_service etcd3\nGLANCE_USE_S3=True", "s3,coordination"),
        ("enable_service etcd3\nEVSCRUB_COORDINATION_URL=none", ""),
        ("EVSCRUB_COORDINATION_URL=redis://h\nEVSCRUB_EXTRAS=s3,swift", "s3,swift,coordination"),
    ],
)
def test_extras(devstack: Start, localrc: str, extras: str) -> None:
    """The clients that Glance's stores, and a coordinator, need are installed."""
    there = devstack(localrc)
    there.run("eval", "set -o errexit; install_evscrub")
    wanted = f"/opt/evscrub[{extras}]" if extras else "/opt/evscrub"
    assert [call for call in there.calls if call.endswith(wanted)]


def test_ceph(devstack: Start) -> None:
    """Ceph's Python bindings are packages of the distribution."""
    there = devstack("ENABLE_CEPH_GLANCE=True")
    there.run("eval", "set -o errexit; preinstall_evscrub")
    assert [call for call in there.calls if "python3-rados python3-rbd" in call]


def test_several_file_stores(devstack: Start) -> None:
    """Stores with names, their folders named as README.rst says."""
    there = devstack(
        "GLANCE_ENABLE_MULTIPLE_STORES=True\nGLANCE_MULTIPLE_FILE_STORES=fast,slow",
        "[glance_store]\ndefault_backend = fast\n"
        "[fast]\nfilesystem_store_datadir = $DATA_DIR/glance/fast/\n"
        "[slow]\nfilesystem_store_datadir = $DATA_DIR/glance/slow/\n"
        "[DEFAULT]\nenabled_backends = fast:file,slow:file\n",
    )
    for name in ("fast", "slow"):
        (there.root / "opt/data/glance" / name).mkdir(parents=True)
    there.run("stack")
    there.exercise()


@pytest.mark.parametrize("address", ["127.0.0.1:9999", ""])
def test_status_listen(devstack: Start, address: str) -> None:
    """The status page's address is written where it is set, and only there."""
    there = devstack(f"EVSCRUB_STATUS_LISTEN={address}")
    there.run("eval", "set -o errexit; configure_evscrub")
    assert read_ini(there.conf).get("status", {}).get("listen") == (address or None)


@pytest.mark.parametrize(
    ("localrc", "url"),
    [
        ("enable_service etcd3\nETCD_PORT=9379", "etcd3+http://127.0.0.1:9379"),
        ("enable_service etcd3\nEVSCRUB_COORDINATION_URL=none", None),
        (
            "enable_service etcd3\nEVSCRUB_COORDINATION_URL='redis://:a@h:1?db=2&ssl=True'",
            "redis://:a@h:1?db=2&ssl=True",
        ),
    ],
)
def test_coordination_url(devstack: Start, localrc: str, url: str | None) -> None:
    """The coordinator is the one that is set, or DevStack's etcd."""
    there = devstack(localrc)
    there.run("eval", "set -o errexit; configure_evscrub")
    assert read_ini(there.conf).get("coordination", {}).get("backend_url") == url
