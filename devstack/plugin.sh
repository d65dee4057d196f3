#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# DevStack plugin: runs an evscrub agent and configures Glance for delayed delete. See README.rst.
#
# stack.sh, unstack.sh and clean.sh source this file once per phase, with the phase as arguments;
# stack.sh does so with errexit set.

_XTRACE_EVSCRUB=$(set +o | grep xtrace)
set +o xtrace

# Glance's options before this plugin changed them, which clean.sh restores.
EVSCRUB_GLANCE_BEFORE=$EVSCRUB_CONF_DIR/glance-before.ini

# Print the URL of the coordinator; nothing if each agent has its limits for itself.
function get_evscrub_coordination_url {
    if [[ "$EVSCRUB_COORDINATION_URL" == "none" ]]; then
        return
    elif [[ -n "$EVSCRUB_COORDINATION_URL" ]]; then
        echo "$EVSCRUB_COORDINATION_URL"
    elif is_service_enabled etcd3; then
        echo "etcd3+http://$SERVICE_HOST:$ETCD_PORT"
    fi
}

# Print the extras of the Python package that the stores of this Glance, and coordination, need.
function get_evscrub_extras {
    local extras=()
    if [[ -n "$EVSCRUB_EXTRAS" ]]; then
        extras+=("$EVSCRUB_EXTRAS")
    else
        if is_service_enabled s-proxy || [[ "${GLANCE_RGW_BACKEND:-}" == "True" ]]; then
            extras+=("swift")
        fi
        if [[ "${GLANCE_USE_S3:-}" == "True" ]]; then
            extras+=("s3")
        fi
        if [[ "${USE_CINDER_FOR_GLANCE:-}" == "True" ]]; then
            extras+=("cinder")
        fi
    fi
    if [[ -n "$(get_evscrub_coordination_url)" ]]; then
        extras+=("coordination")
    fi
    join_extras "${extras[@]}"
}

function preinstall_evscrub {
    if ! is_service_enabled g-api; then
        die $LINENO "evscrub needs Glance on this host: enable g-api, or disable_service evscrub"
    fi
    if [[ "${ENABLE_CEPH_GLANCE:-}" == "True" ]]; then
        # Ceph's Python bindings are packages of the distribution, visible in the global venv.
        install_package python3-rados python3-rbd
    fi
}

function install_evscrub {
    # Not setup_develop, which fails without a setup.cfg.
    setup_package "$EVSCRUB_DIR" -e "$(get_evscrub_extras)"
}

function configure_evscrub {
    local coordination_url
    # Readable by the stack user only, because it may contain credentials.
    sudo install -d -o "$STACK_USER" -m 700 "$EVSCRUB_CONF_DIR"
    install -m 600 /dev/null "$EVSCRUB_CONF"
    "$EVSCRUB_BIN_DIR/oslo-config-generator" --namespace evscrub --namespace oslo.log \
        --output-file "$EVSCRUB_CONF"

    iniset "$EVSCRUB_CONF" DEFAULT debug "$ENABLE_DEBUG_LOG_LEVEL"
    setup_logging "$EVSCRUB_CONF"
    iniset "$EVSCRUB_CONF" DEFAULT glance_config_files "$GLANCE_API_CONF"
    iniset "$EVSCRUB_CONF" DEFAULT scrub_time "$EVSCRUB_SCRUB_TIME"
    iniset "$EVSCRUB_CONF" listener topics "$EVSCRUB_TOPIC"
    iniset "$EVSCRUB_CONF" scrubber concurrency "$EVSCRUB_CONCURRENCY"
    iniset "$EVSCRUB_CONF" scrubber rate "$EVSCRUB_RATE"
    iniset "$EVSCRUB_CONF" sweep interval "$EVSCRUB_SWEEP_INTERVAL"
    coordination_url=$(get_evscrub_coordination_url)
    if [[ -n "$coordination_url" ]]; then
        iniset "$EVSCRUB_CONF" coordination backend_url "$coordination_url"
    fi
    if [[ -n "$EVSCRUB_STATUS_LISTEN" ]]; then
        iniset "$EVSCRUB_CONF" status listen "$EVSCRUB_STATUS_LISTEN"
    fi
}

# Save the current value of an option of Glance, unless one is saved already.
# remember_glance_option section option value
function remember_glance_option {
    if ! ini_has_option "$EVSCRUB_GLANCE_BEFORE" "$1" "$2"; then
        iniset "$EVSCRUB_GLANCE_BEFORE" "$1" "$2" "$3"
    fi
}

# Restore an option of Glance if it was saved; remove it if it was not set before.
# restore_glance_option section option
function restore_glance_option {
    local values
    if ! ini_has_option "$EVSCRUB_GLANCE_BEFORE" "$1" "$2"; then
        return 0
    fi
    values=$(iniget_multiline "$EVSCRUB_GLANCE_BEFORE" "$1" "$2")
    if [[ -n "$values" ]]; then
        # shellcheck disable=SC2086 # a value each
        iniset_multiline "$GLANCE_API_CONF" "$1" "$2" $values
    else
        inidelete "$GLANCE_API_CONF" "$1" "$2"
    fi
    inidelete "$EVSCRUB_GLANCE_BEFORE" "$1" "$2"
}

# Remove the topic that this plugin added from Glance's topics.
function remove_evscrub_topic {
    local section=oslo_messaging_notifications added default topics kept=() topic
    added=$(iniget "$EVSCRUB_GLANCE_BEFORE" evscrub added_topic)
    default=$(iniget "$EVSCRUB_GLANCE_BEFORE" evscrub default_topics)
    topics=$(iniget "$GLANCE_API_CONF" $section topics)
    for topic in ${topics//,/ }; do
        if [[ "$topic" != "$added" ]]; then
            kept+=("$topic")
        fi
    done
    topics=$(join_extras "${kept[@]}")
    if [[ "$topics" == "$default" ]]; then
        inidelete "$GLANCE_API_CONF" $section topics
    else
        iniset "$GLANCE_API_CONF" $section topics "$topics"
    fi
    inidelete "$EVSCRUB_GLANCE_BEFORE" evscrub added_topic
    inidelete "$EVSCRUB_GLANCE_BEFORE" evscrub default_topics
}

function add_evscrub_topic {
    local section=oslo_messaging_notifications added topics
    added=$(iniget "$EVSCRUB_GLANCE_BEFORE" evscrub added_topic)
    if [[ -n "$added" && "$added" != "$EVSCRUB_TOPIC" ]]; then
        remove_evscrub_topic
    fi
    topics=$(iniget "$GLANCE_API_CONF" $section topics)
    topics=${topics// /}
    if [[ ",$topics," == *",$EVSCRUB_TOPIC,"* ]]; then
        return 0
    fi
    if [[ -z "$topics" ]]; then
        # oslo.messaging's default, which other services listen to.
        topics=notifications
        iniset "$EVSCRUB_GLANCE_BEFORE" evscrub default_topics $topics
    fi
    iniset "$EVSCRUB_GLANCE_BEFORE" evscrub added_topic "$EVSCRUB_TOPIC"
    iniset "$GLANCE_API_CONF" $section topics "$topics,$EVSCRUB_TOPIC"
}

# Make Glance leave deleted data to evscrub and notify it. Set EVSCRUB_GLANCE_CHANGED to True if
# glance-api must be restarted.
function configure_glance_for_evscrub {
    local section=oslo_messaging_notifications before delayed drivers
    before=$(cksum "$GLANCE_API_CONF")
    touch "$EVSCRUB_GLANCE_BEFORE"

    delayed=$(iniget "$GLANCE_API_CONF" DEFAULT delayed_delete)
    if [[ "${delayed,,}" != "true" ]]; then
        remember_glance_option DEFAULT delayed_delete "$delayed"
        iniset "$GLANCE_API_CONF" DEFAULT delayed_delete True
    fi
    # DevStack sets messagingv2 itself; there may be several drivers.
    drivers=$(iniget_multiline "$GLANCE_API_CONF" $section driver)
    if [[ " $drivers " != *" messagingv2 "* && " $drivers " != *" messaging "* ]]; then
        remember_glance_option $section driver "$drivers"
        # shellcheck disable=SC2086 # a driver each
        iniset_multiline "$GLANCE_API_CONF" $section driver $drivers messagingv2
    fi
    add_evscrub_topic

    EVSCRUB_GLANCE_CHANGED=False
    if [[ "$(cksum "$GLANCE_API_CONF")" != "$before" ]]; then
        EVSCRUB_GLANCE_CHANGED=True
    fi
}

function start_evscrub {
    # A running unit would keep its old configuration.
    stop_process evscrub
    run_process evscrub "$EVSCRUB_BIN_DIR/evscrub agent --config-file $EVSCRUB_CONF"
}

function stop_evscrub {
    stop_process evscrub
}

# Warnings (1) are only shown; failures (2) and higher codes end stack.sh.
function check_evscrub {
    local code=0
    "$EVSCRUB_BIN_DIR/evscrub" check --config-file "$EVSCRUB_CONF" || code=$?
    if [[ $code -gt 1 ]]; then
        die $LINENO "evscrub check found problems that keep it from working: see the table above"
    fi
}

function cleanup_evscrub {
    stop_process evscrub
    if [[ -f "$GLANCE_API_CONF" && -f "$EVSCRUB_GLANCE_BEFORE" ]]; then
        restore_glance_option DEFAULT delayed_delete
        restore_glance_option oslo_messaging_notifications driver
        if ini_has_option "$EVSCRUB_GLANCE_BEFORE" evscrub added_topic; then
            remove_evscrub_topic
        fi
    fi
    sudo rm -rf "$EVSCRUB_CONF_DIR"
    sudo rm -f "$EVSCRUB_CONF" "$SYSTEMD_DIR/devstack@evscrub.service"
    $SYSTEMCTL daemon-reload
    if [[ "$GLOBAL_VENV" == "True" ]]; then
        # By default pip_uninstall uses the system's Python.
        PIP_VIRTUAL_ENV=$DEVSTACK_VENV pip_uninstall evscrub
    else
        pip_uninstall evscrub
    fi
}

$_XTRACE_EVSCRUB

if is_service_enabled evscrub; then
    if [[ "$1" == "stack" && "$2" == "pre-install" ]]; then
        echo_summary "Preparing evscrub"
        preinstall_evscrub
    elif [[ "$1" == "stack" && "$2" == "install" ]]; then
        echo_summary "Installing evscrub"
        install_evscrub
    elif [[ "$1" == "stack" && "$2" == "post-config" ]]; then
        echo_summary "Configuring evscrub, and Glance for it"
        configure_evscrub
        configure_glance_for_evscrub
        if [[ "$EVSCRUB_GLANCE_CHANGED" == "True" ]]; then
            # It may still run from an earlier stack.sh. stack.sh starts it after this phase.
            stop_process g-api
        fi
    elif [[ "$1" == "stack" && "$2" == "extra" ]]; then
        # Again, because local.conf and later plugins may have changed Glance's options since.
        configure_glance_for_evscrub
        if [[ "$EVSCRUB_GLANCE_CHANGED" == "True" ]]; then
            echo_summary "Restarting Glance for evscrub"
            $SYSTEMCTL restart devstack@g-api.service
            if ! wait_for_service "$SERVICE_TIMEOUT" "$GLANCE_URL"; then
                die $LINENO "g-api did not start again"
            fi
        fi
        echo_summary "Starting evscrub"
        start_evscrub
    elif [[ "$1" == "stack" && "$2" == "test-config" ]]; then
        echo_summary "Checking evscrub"
        check_evscrub
    elif [[ "$1" == "unstack" ]]; then
        echo_summary "Stopping evscrub"
        stop_evscrub
    elif [[ "$1" == "clean" ]]; then
        echo_summary "Removing evscrub"
        cleanup_evscrub
    fi
fi
