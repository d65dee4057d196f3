#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Do what DevStack's stack.sh, unstack.sh and clean.sh do as far as Glance and plugins see it, in
# their order and with their shell options, with the functions of the DevStack in $1.
#
#   phases.sh DEVSTACK stack|unstack|clean
#   phases.sh DEVSTACK eval CODE       evaluates the code where the plugin is loaded

TOP_DIR=$1
MODE=$2
export TOP_DIR

# The libraries that stack.sh sources, as far as they are there.
function source_libraries {
    local name
    for name in apache tls infra libraries keystone glance; do
        if [[ -f $TOP_DIR/lib/$name ]]; then
            # shellcheck source=/dev/null
            source "$TOP_DIR/lib/$name"
        fi
    done
}

# Run a phase, and see that the shell's options are afterwards what they were before.
function guard {
    local before=$SHELLOPTS
    run_phase "$@"
    if [[ $SHELLOPTS != "$before" ]]; then
        echo "CHANGED by $*: $before to $SHELLOPTS" >&2
        exit 99
    fi
}

function stack {
    set -o errexit
    run_phase override_defaults
    source_libraries
    run_phase source
    if [[ -f $TOP_DIR/lib/database ]]; then
        initialize_database_backends
        define_database_baseurl
    fi
    guard stack pre-install
    configure_glance
    guard stack install
    # init_glance makes the folder; the database is made when Glance starts.
    mkdir -p "$GLANCE_IMAGE_DIR"
    guard stack post-config
    merge_config_group "$TOP_DIR/local.conf" post-config
    start_glance
    guard stack extra
    guard stack test-config
}

function unstack {
    run_phase override_defaults
    source_libraries
    load_plugin_settings
    set -o xtrace
    guard unstack
    stop_glance
}

function clean {
    source_libraries
    set -o xtrace
    load_plugin_settings
    guard clean
}

# shellcheck source=/dev/null
source "$TOP_DIR/functions"
if [[ $MODE == stack || $MODE == eval ]]; then
    extract_localrc_section "$TOP_DIR/local.conf" "$TOP_DIR/localrc" "$TOP_DIR/.localrc.auto"
fi
if [[ $MODE == stack ]]; then
    set -o xtrace
fi
# shellcheck source=/dev/null
source "$TOP_DIR/stackrc"
# Nowhere but in the test's own folder.
# shellcheck disable=SC2034 # run_process uses it
SYSTEMD_DIR=$PHASES_SYSTEMD_DIR
for name in database rpc_backend; do
    if [[ -f $TOP_DIR/lib/$name ]]; then
        # shellcheck source=/dev/null
        source "$TOP_DIR/lib/$name"
    fi
done

case $MODE in
    stack) stack ;;
    unstack) unstack ;;
    clean) clean ;;
    eval)
        source_libraries
        load_plugin_settings
        # shellcheck source=/dev/null
        source "${GITDIR[evscrub]}/devstack/plugin.sh" "" ""
        eval "$3"
        ;;
esac
