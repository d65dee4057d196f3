#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Check everything: style, types, scripts, and the tests on real servers.
#
#   tests/run.sh               everything
#   tests/run.sh unit          the unit tests alone, without servers and without checks
#   tests/run.sh -k claim -x   everything, with these arguments passed on to pytest
#
# PYTHON names the interpreter to use, python3 by default. Further interpreters that are
# there, of those in FURTHER_PYTHONS, run the unit tests too.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
FURTHER_PYTHONS=${FURTHER_PYTHONS:-python3.12 python3.13}
VENV=.venv-tests
PACKAGES=(rabbitmq-server mariadb-server galera-4 rsync postgresql chromium prometheus shellcheck)

say() {
    printf '\n== %s\n' "$*"
}

fail() {
    printf 'tests/run.sh: %s\n' "$*" >&2
    exit 1
}

# Make the environment $1 with the interpreter $2, or bring it up to date.
make_environment() {
    local environment=$1 python=$2 wanted=$1/.installed stamp
    stamp=$("$python" --version; cat pyproject.toml tests/constraints.txt)
    if [[ -f $wanted && $(<"$wanted") == "$stamp" ]]; then
        return
    fi
    rm -rf "$environment"
    "$python" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint tests/constraints.txt --editable '.[test]'
    printf '%s\n' "$stamp" > "$wanted"
}

missing_packages() {
    local package
    for package in "${PACKAGES[@]}"; do
        if ! dpkg-query --show --showformat '${db:Status-Status}\n' "$package" 2> /dev/null |
            grep --quiet --line-regexp installed; then
            echo "$package"
        fi
    done
}

# Install packages without letting them start services: the tests start their own servers.
install_packages() {
    local become=() policy=/usr/sbin/policy-rc.d made_policy='' done=0
    if ((EUID)); then
        sudo --non-interactive true 2> /dev/null ||
            fail "cannot install packages; as root: apt-get install $*"
        become=(sudo --non-interactive)
    fi
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' | "${become[@]}" tee "$policy" > /dev/null
        "${become[@]}" chmod 755 "$policy"
        made_policy=yes
    fi
    "${become[@]}" apt-get update --quiet --quiet &&
        "${become[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install --yes --quiet --quiet --no-install-recommends "$@" > /dev/null ||
        done=$?
    if [[ -n $made_policy ]]; then
        "${become[@]}" rm -f "$policy"
    fi
    ((done == 0)) || fail "apt-get install $* failed"
}

install_servers() {
    local missing
    if ! command -v apt-get > /dev/null; then
        for program in rabbitmq-server mariadbd shellcheck; do
            PATH=$PATH:/usr/sbin:/usr/lib/rabbitmq/bin command -v "$program" > /dev/null ||
                fail "$program is missing; needed are: ${PACKAGES[*]}"
        done
        return
    fi
    mapfile -t missing < <(missing_packages)
    if ((${#missing[@]})); then
        say "apt-get install ${missing[*]}"
        install_packages "${missing[@]}"
    fi
}

check() {
    local bin=$VENV/bin scripts devstack texts text
    mapfile -t scripts < <(git ls-files --cached --others --exclude-standard -- \
        '*.sh' .ci/run devstack/settings)
    mapfile -t devstack < <(printf '%s\n' "${scripts[@]}" | grep '^devstack/' || true)
    say "ruff"
    "$bin/ruff" check .
    "$bin/ruff" format --check .
    say "mypy --strict"
    "$bin/mypy" --strict
    say "shellcheck: ${scripts[*]}"
    shellcheck --external-sources "${scripts[@]}"
    if ((${#devstack[@]})); then
        say "bashate: ${devstack[*]}"
        "$bin/bashate" --ignore E006 "${devstack[@]}"
    fi
    mapfile -t texts < <(git ls-files --cached --others --exclude-standard -- '*.rst')
    say "docutils: ${texts[*]}"
    for text in "${texts[@]}"; do
        "$bin/python" -m docutils --report=info --halt=info "$text" > /dev/null
    done
}

# Say where the interpreter $1 is; a version manager may have it without showing it.
find_python() {
    local candidate candidates=("$1")
    if command -v pyenv > /dev/null; then
        candidates+=("$(pyenv root)/versions/${1#python}".*"/bin/$1")
    fi
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import venv' 2> /dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# Run the unit tests on each further interpreter that works here.
further() {
    local name python environment
    for name in $FURTHER_PYTHONS; do
        if ! python=$(find_python "$name"); then
            say "$name: not found, left out"
            continue
        fi
        say "$name: unit tests, with $python"
        environment=$VENV-$name
        make_environment "$environment" "$python"
        "$environment/bin/python" -m pytest tests/unit
    done
}

if [[ ${1:-} == unit ]]; then
    shift
    make_environment "$VENV" "$PYTHON"
    "$VENV/bin/python" -m pytest tests/unit "$@"
    say "only the unit tests ran: no check, no server, no other Python"
    exit
fi

make_environment "$VENV" "$PYTHON"
install_servers
check
say "$PYTHON: all tests"
"$VENV/bin/python" -m pytest "$@"
further
