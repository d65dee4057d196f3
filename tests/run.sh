#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Check everything: style, types, scripts, and the tests on real servers.
#
#   tests/run.sh               everything
#   tests/run.sh quick         what to run at each commit: style, types, the unit tests but for the
#                              costly ones, with fewer examples, and one agent from end to end
#   tests/run.sh unit          the unit tests alone, without servers and without checks
#   tests/run.sh readme        README.rst's commands as on a fresh machine, with the time of each
#   tests/run.sh docs          the documentation, in build/docs/html, and the manual page
#   tests/run.sh container     build the container image and run an agent in it
#   tests/run.sh galera        the long cases on a Galera cluster, and a table of them
#   tests/run.sh coordination  agents of a group that keep one rate, on each kind of coordinator, and a
#                              table of what a store counted; further arguments, such as --backend
#                              redis, are those of python -m tests.coordination
#   tests/run.sh random        the tests in random order, without checks; the seed is printed, and
#                              --randomly-seed=N as a further argument repeats it
#   tests/run.sh releases      the main cases beside other releases of Glance, and a table of them;
#                              before them, packages, see below
#   tests/run.sh packages      the packages: wheel and sdist are built, the wheel is installed without
#                              constraints with the lowest and with the newest dependencies, and the
#                              unit tests run from the sdist with each
#   tests/run.sh -k claim -x   everything, with these arguments passed on to pytest
#
# PYTHON names the interpreter to use, python3 by default. The unit tests that are not costly also
# run, with fewer examples, on one of the FURTHER_PYTHONS that are installed; the next commit takes the
# next one. WORKERS is how many tests run at a time, by default three a processor, because tests mostly
# wait.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
FURTHER_PYTHONS=${FURTHER_PYTHONS:-python3.12 python3.13}
WORKERS=${WORKERS:-$((3 * $(nproc)))}
VENV=.venv-tests
UV=.venv-tests-uv
PACKAGES=(rabbitmq-server mariadb-server galera-4 rsync postgresql etcd-server redis-server memcached)
PACKAGES+=(chromium prometheus shellcheck systemd)
CONTAINER_PACKAGES=(buildah mmdebstrap)
# Without the unit tests that take about a second or more each, and with fewer examples.
QUICKLY=(-m 'not costly' --hypothesis-profile=few)
LOGS=$(mktemp --directory)

# Many processes start; each would compile all that it imports.
unset PYTHONDONTWRITEBYTECODE

say() {
    printf '\n== %s\n' "$*"
}

fail() {
    printf 'tests/run.sh: %s\n' "$*" >&2
    exit 1
}

# Install uv, which takes seconds to make an environment where pip takes more than a minute.
install_uv() {
    if [[ ! -x $UV/bin/uv ]]; then
        "$PYTHON" -m venv "$UV"
        "$UV/bin/python" -m pip install --quiet --disable-pip-version-check \
            --constraint tests/constraints.txt uv
    fi
}

# Make the environment $1 with the interpreter $2, or bring it up to date.
make_environment() {
    local environment=$1 python=$2 wanted=$1/.installed stamp
    stamp=$("$python" --version; cat pyproject.toml tests/constraints.txt)
    if [[ -f $wanted && $(<"$wanted") == "$stamp" ]]; then
        return
    fi
    rm -rf "$environment"
    "$UV/bin/uv" venv --quiet --python "$python" "$environment"
    "$UV/bin/uv" pip install --quiet --python "$environment/bin/python" \
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

# Have systemd read the units, and judge how confined they are: in tenths, up to 19 is OK to it.
check_units() {
    local unit copy copies said
    copies=$(mktemp --directory --tmpdir="$LOGS")
    for unit in etc/systemd/*.service; do
        say "systemd-analyze: $unit"
        systemd-analyze security --no-pager --offline=true --threshold=17 "$unit" | tail --lines=1
        copy=$copies/$(basename "${unit/@/@1}")
        # evscrub itself need not be installed here.
        sed 's:^ExecStart=[^ ]*:ExecStart=/bin/true:' "$unit" > "$copy"
        # It prints what it ignores, and returns 0 then.
        said=$(systemd-analyze verify --man=no "$copy" 2>&1) || true
        [[ -z $said ]] || fail "$said"
    done
}

# Check style and types.
check() {
    local bin=$VENV/bin scripts devstack
    mapfile -t scripts < <(find devstack tests -name '*.sh' | sort
        printf '%s\n' .ci/run devstack/settings)
    mapfile -t devstack < <(printf '%s\n' "${scripts[@]}" | grep '^devstack/' || true)
    say "ruff"
    "$bin/ruff" check .
    "$bin/ruff" format --check .
    say "mypy --strict"
    "$bin/mypy" --strict
    "$bin/mypy" --strict etc/docs
    say "import-linter"
    "$bin/lint-imports" --no-cache --no-logo
    say "shellcheck: ${scripts[*]}"
    shellcheck --external-sources "${scripts[@]}"
    if ((${#devstack[@]})); then
        say "bashate: ${devstack[*]}"
        "$bin/bashate" --ignore E006 "${devstack[@]}"
    fi
}

# Check all that is no test.
check_all() {
    local texts text
    check
    say "tests/constraints.txt for the oldest Python"
    "$UV/bin/uv" pip compile --quiet --python-version 3.11.0 --constraint tests/constraints.txt \
        --extra test pyproject.toml > /dev/null
    check_units
    mapfile -t texts < <(find README.rst devstack etc -name '*.rst' -not -path 'etc/docs/*')
    say "docutils: ${texts[*]}"
    for text in "${texts[@]}"; do
        "$VENV/bin/python" -m docutils --report=info --halt=info "$text" > /dev/null
    done
    build_docs
    cmp build/docs/man/evscrub.8 etc/man/evscrub.8 ||
        fail "etc/man/evscrub.8 is stale; to renew it, run: tests/run.sh docs"
}

# Build the documentation in build/docs, with warnings as errors, the manual page from what the HTML
# was made of.
build_docs() {
    local build=("$VENV/bin/sphinx-build" -W --quiet --doctree-dir build/docs/doctrees)
    say "sphinx: HTML and manual page"
    "${build[@]}" --fresh-env --builder html etc/docs build/docs/html
    "${build[@]}" --builder man etc/docs build/docs/man
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

# Say which interpreter's turn it is, of the further ones that are there.
further_python() {
    local name commits found=()
    for name in $FURTHER_PYTHONS; do
        if find_python "$name" > /dev/null; then
            found+=("$name")
        fi
    done
    if ((${#found[@]})); then
        # Where there is no git, as in an unpacked sdist, it is always the first one's.
        commits=$(git rev-list --count HEAD 2> /dev/null || echo 0)
        echo "${found[commits % ${#found[@]}]}"
    fi
}

# Run the unit tests on the interpreter called $1.
further() {
    local python environment=$VENV-$1
    python=$(find_python "$1")
    make_environment "$environment" "$python"
    # To rewrite assertions takes longer than to compile; what they compare, the first Python shows.
    "$environment/bin/python" -m pytest --quiet -n 0 --assert=plain "${QUICKLY[@]}" tests/unit
}

# Build wheel and sdist, and unpack the sdist.
build_packages() {
    say "wheel and sdist"
    "$UV/bin/uv" build --quiet --python "$PYTHON" --out-dir "$LOGS/dist" .
    tar --extract --directory "$LOGS" --file "$LOGS"/dist/evscrub-*.tar.gz
    ls -l "$LOGS/dist"
}

# Install the wheel with the dependencies that uv's resolution $1 chooses, and run the unit tests.
try_packages() {
    local environment=$PWD/$VENV-$1 versions=$LOGS/versions-$1 wheel folder
    wheel=$(echo "$LOGS"/dist/evscrub-*.whl)
    folder=$(echo "$LOGS"/evscrub-*/)
    say "the wheel with dependencies: $1"
    # Asked to install the wheel, uv would take the newest of all that the wheel depends on.
    "$UV/bin/uv" pip compile --quiet --python "$PYTHON" --resolution "$1" --extra test \
        --output-file "$versions" pyproject.toml
    "$UV/bin/uv" venv --quiet --clear --python "$PYTHON" "$environment"
    "$UV/bin/uv" pip install --quiet --python "$environment/bin/python" --constraint "$versions" \
        "${wheel}[test]"
    [[ $(cd / && "$environment/bin/evscrub" --data-dir) == "$environment/share/evscrub" ]] ||
        fail "evscrub --data-dir does not find the wheel's files"
    # An old library may use what a newer one that it needs is about to drop, and the sample has the
    # options of the libraries in tests/constraints.txt.
    (cd "$folder" && "$environment/bin/python" -m pytest --quiet -n "$(nproc)" -m 'not costly' \
        -W ignore::DeprecationWarning --ignore tests/unit/config/test_sample.py tests/unit)
}

packages() {
    build_packages
    try_packages lowest-direct
    try_packages highest
}

# Run a command in the background, in a process group of its own: start NAME COMMAND [ARGUMENT ...]
declare -A STARTED=()
start() {
    local name=$1
    shift
    set -m
    (
        set -euo pipefail
        "$@"
    ) &> "$LOGS/$name" < /dev/null &
    STARTED[$name]=$!
    set +m
}

# Leave nothing behind, neither files nor what still runs.
clean_up() {
    local group
    for group in "${STARTED[@]}"; do
        kill -- "-$group" 2> /dev/null || true
    done
    rm -rf "$LOGS"
}
trap clean_up EXIT

# Wait for what was started as $1, show what it printed, and return what it returned.
finish() {
    local code=0
    wait "${STARTED[$1]}" || code=$?
    unset "STARTED[$1]"
    cat "$LOGS/$1"
    if ((code)); then
        say "$1 FAILED"
    fi
    return "$code"
}

everything() {
    local code=0 further
    start packages install_servers
    install_uv
    further=$(further_python)
    if [[ -n $further ]]; then
        start "unit tests on $further" bash tests/run.sh --further "$further"
    else
        say "no further Python: none of $FURTHER_PYTHONS is here"
    fi
    make_environment "$VENV" "$PYTHON"
    # The workers start together; each would compile all that it imports. Errors are theirs to tell.
    "$VENV/bin/python" -m pytest --collect-only --quiet &> /dev/null || true
    finish packages
    start checks check_all
    say "$PYTHON: all tests, $WORKERS at a time"
    "$VENV/bin/python" -m pytest -n "$WORKERS" "$@" || code=$?
    finish checks || code=$?
    if [[ -n $further ]]; then
        finish "unit tests on $further" || code=$?
    fi
    return "$code"
}

quick() {
    local code=0
    install_uv
    make_environment "$VENV" "$PYTHON"
    install_servers
    start checks check
    # The one with servers mostly waits: others run beside it, if it is the first.
    "$VENV/bin/python" -m pytest --quiet -n "$(nproc)" "${QUICKLY[@]}" "$@" \
        'tests/functional/test_agent.py::TestOneAgent::test_image_is_scrubbed_when_due_and_not_before[sqlite]' \
        tests/unit || code=$?
    finish checks || code=$?
    return "$code"
}

case ${1:-} in
    quick)
        quick "${@:2}"
        ;;
    unit)
        install_uv
        make_environment "$VENV" "$PYTHON"
        "$VENV/bin/python" -m pytest -n "$(nproc)" tests/unit "${@:2}"
        say "only the unit tests ran: no check, no server, no other Python"
        ;;
    docs)
        install_uv
        make_environment "$VENV" "$PYTHON"
        build_docs
        cp build/docs/man/evscrub.8 etc/man/evscrub.8
        say "build/docs/html/index.html, etc/man/evscrub.8"
        ;;
    readme)
        install_uv
        make_environment "$VENV" "$PYTHON"
        install_servers
        EVSCRUB_README=network "$VENV/bin/python" -m pytest -n 0 -rP tests/functional/test_readme.py \
            "${@:2}"
        ;;
    releases)
        install_uv
        make_environment "$VENV" "$PYTHON"
        install_servers
        packages
        say "Glance releases: main cases; the first run makes an environment for each of them"
        "$VENV/bin/python" -m pytest tests/releases "${@:2}"
        ;;
    container)
        install_uv
        make_environment "$VENV" "$PYTHON"
        PACKAGES=("${CONTAINER_PACKAGES[@]}")
        install_servers
        "$VENV/bin/python" -m pytest -s -v tests/container "${@:2}"
        ;;
    packages)
        install_uv
        packages
        ;;
    galera)
        install_uv
        make_environment "$VENV" "$PYTHON"
        install_servers
        "$VENV/bin/python" -m pytest tests/galera --galera-long "${@:2}"
        ;;
    coordination)
        install_uv
        make_environment "$VENV" "$PYTHON"
        install_servers
        say "Agents of a group: a minute or two for each case; --help says what can be chosen"
        "$VENV/bin/python" -m tests.coordination "${@:2}"
        ;;
    random)
        install_uv
        make_environment "$VENV" "$PYTHON"
        install_servers
        "$VENV/bin/python" -m pytest -n "$WORKERS" -p randomly "${@:2}"
        ;;
    --further)
        further "$2"
        ;;
    *)
        everything "$@"
        ;;
esac
