#!/usr/bin/env bash
# Brings what this machine lacks, and nothing that it has: Debian packages, the virtual environment, the servers that
# Maven has, the browser libraries. `bootstrap.sh check` for the linters, `up` for the stack, `test` for the tests.
set -euo pipefail
cd "$(dirname "$0")/../.."
goal=${1:?check, up or test}
logs=$PWD/.stack/log
mkdir -p "$logs" .stack/opt
exec 9>.stack/setup.lock
flock 9 # two makes at once set up one after the other

fail() { printf ' ✗ %s\n' "$1" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
any() { compgen -G "$1" >/dev/null; }

have python3.11 || fail "python3.11 is not on this machine, and everything here runs on it: apt-get install python3.11"

packages=()
needs() { packages+=("$@"); }
python3.11 -c 'import ensurepip' 2>/dev/null || needs python3.11-venv
if [ "$goal" != check ]; then
    any '/usr/lib/jvm/java-17-openjdk-*/bin/java' || needs openjdk-17-jre-headless
    any '/usr/lib/postgresql/*/bin/postgres' || needs postgresql
    have redis-server || needs redis-server
    have mvn || needs maven
    have ffmpeg || needs ffmpeg
    have kcat || needs kcat
    have bwrap || needs bubblewrap
    have npm || needs nodejs npm
    have curl || needs curl
    any '/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf' || needs fonts-dejavu-core
fi
if [ "$goal" = test ]; then
    have chromium || needs chromium
fi
if [ "$goal" = bench ]; then
    have wrk || needs wrk
    have nginx || needs nginx-light
fi

# A step's output goes to its log; the screen gets a line when it starts, and one when it ends. It runs as a job, since
# bash forgets `set -e` within a condition.
step() {
    local name=$1 log=$logs/setup-$1.log what=$2 began=$SECONDS
    shift 2
    printf ' … %-14s %s\n' "$name" "$what"
    "$@" >"$log" 2>&1 </dev/null &
    if wait $!; then
        printf ' ✓ %-14s after %s s\n' "$name" $((SECONDS - began))
    else
        fail "$name failed: $( (grep -E 'ERROR|ERR!|error:|^E:' "$log" || tail -n 1 "$log") | head -n 1 | cut -c 1-300) (all of it in $log)"
    fi
}

# Debian starts a service as soon as its package is there, and again at every boot. Ours are processes of this project
# on ports of their own, so what is installed here stays down.
install_packages() {
    local root=() policy=/usr/sbin/policy-rc.d clusters=/etc/postgresql-common/createcluster.conf
    [ "$(id -u)" = 0 ] || root=(sudo)
    if [ ! -e $policy ]; then
        trap "${root[*]} rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
        "${root[@]}" chmod 755 $policy
    fi
    local ours=
    if [[ " ${packages[*]} " == *" postgresql "* ]] && [ ! -e $clusters ]; then
        ours=yes
        "${root[@]}" mkdir -p "$(dirname $clusters)"
        echo 'create_main_cluster = false' | "${root[@]}" tee $clusters >/dev/null
    fi
    "${root[@]}" apt-get update
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -o Dpkg::Options::=--force-confold "${packages[@]}"
    for service in postgresql redis-server; do
        if [[ " ${packages[*]} " == *" $service "* ]]; then "${root[@]}" update-rc.d $service disable; fi
    done
    if [ -n "$ours" ]; then "${root[@]}" cp /usr/share/postgresql-common/createcluster.conf $clusters; fi
}

build_venv() {
    [ -x .venv/bin/python ] || python3.11 -m venv .venv
    .venv/bin/python -m pip install --disable-pip-version-check --require-hashes -r requirements.txt
    cp requirements.txt .venv/installed.txt
}

fetch_servers() {
    rm -rf .stack/opt/kafka .stack/opt/elasticsearch-* .stack/opt/unpacked
    mvn -q -B -f compose/local/pom.xml process-resources "-Dopt=$PWD/.stack/opt"
    cp compose/local/pom.xml .stack/opt/fetched-pom.xml
}

fetch_browser_libraries() {
    npm ci --no-audit --no-fund --ignore-scripts
    npm run vendor
    cp package-lock.json node_modules/installed-lock.json
}

if [ ${#packages[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || have sudo || fail "neither root nor sudo: ask for these Debian packages: ${packages[*]}"
    step packages "apt-get install ${packages[*]}" install_packages
fi

jobs=()
if ! cmp -s requirements.txt .venv/installed.txt; then
    step python "pip installs requirements.txt into .venv" build_venv & jobs+=($!)
fi
if [ "$goal" != check ]; then
    if ! cmp -s compose/local/pom.xml .stack/opt/fetched-pom.xml; then
        step servers "Maven fetches Kafka and Elasticsearch (150 MB)" fetch_servers & jobs+=($!)
    fi
    if ! cmp -s package-lock.json node_modules/installed-lock.json; then
        step browser "npm fetches the browser libraries and what the tests take from it" fetch_browser_libraries & jobs+=($!)
    fi
fi
failed=0
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
exit $failed
