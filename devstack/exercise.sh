#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Exercise evscrub in a DevStack: create an image, delete it, and wait until its data is gone.
#
#   devstack/exercise.sh
#
# DEVSTACK_DIR is DevStack's folder, /opt/stack/devstack by default. The exit code is 0 on success.

set -o errexit
set -o pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DEVSTACK_DIR=${DEVSTACK_DIR:-/opt/stack/devstack}
if [[ ! -r $DEVSTACK_DIR/openrc ]]; then
    echo "$DEVSTACK_DIR is not DevStack's folder: set DEVSTACK_DIR" >&2
    exit 2
fi
# shellcheck source=/dev/null
source "$DEVSTACK_DIR/openrc" admin admin
# shellcheck source=/dev/null
source "$HERE/settings"

# Seconds beyond EVSCRUB_SCRUB_TIME after which the data must be gone.
GRACE=${GRACE:-60}
SIZE=1048576

if [[ "$GLOBAL_VENV" == "True" ]]; then
    python=$DEVSTACK_VENV/bin/python3
else
    python=python$PYTHON3_VERSION
fi
name=evscrub-exercise-$$
work=$(mktemp -d)
image=""

function finish {
    local code=$?
    rm -rf "$work"
    if [[ -n "$image" ]]; then
        openstack image delete "$image" || true
    fi
    if [[ $code -ne 0 ]]; then
        echo "FAILED: see 'journalctl --unit devstack@evscrub' and 'evscrub check'" >&2
    fi
}
trap finish EXIT

function image_data {
    "$python" "$HERE/image_data.py" --config-file "$EVSCRUB_CONF" "$1"
}

head --bytes=$SIZE /dev/urandom > "$work/data"
echo "Creating the image $name"
openstack image create --disk-format raw --container-format bare --file "$work/data" "$name"
image=$(openstack image show --format value --column id "$name")
id=$image
if [[ "$(image_data "$id")" != "there" ]]; then
    echo "The data of $id is not in its store after the upload" >&2
    exit 1
fi

echo "Deleting it; its data should go after $EVSCRUB_SCRUB_TIME s"
openstack image delete "$id"
image=""
deleted=$SECONDS
if [[ $EVSCRUB_SCRUB_TIME -gt 5 && "$(image_data "$id")" != "there" ]]; then
    echo "The data of $id was deleted immediately: enable delayed_delete in glance-api.conf" >&2
    exit 1
fi
while [[ "$(image_data "$id")" != "gone" ]]; do
    if ((SECONDS - deleted > EVSCRUB_SCRUB_TIME + GRACE)); then
        echo "The data of $id is still there after $((SECONDS - deleted)) s" >&2
        exit 1
    fi
    sleep 1
done
echo "Gone after $((SECONDS - deleted)) s"
