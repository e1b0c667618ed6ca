#!/bin/bash
# Start and stop one Ray in a process group of its own, on a machine where other Rays may run.
# `ray stop` goes by name: it ends every Ray that the user may end. This ends the one it started.
#
#   own_ray.sh start NAME ray start --head --port=6380 ..    in the background; waits until it is up
#   own_ray.sh start NAME ray start --address=HEAD:6380 ..
#   own_ray.sh stop NAME
#
# State lies on the machine's own disk, as homes are often shared.
set -euo pipefail
here=/tmp/distributed_dd-$(id -un)
what=${1:?start or stop} name=${2:?a name}
group=$here/$name.group log=$here/$name.log
shift 2
umask 077
mkdir -p "$here"
[ -O "$here" ] || { echo "$here belongs to somebody else" >&2; exit 1; }

running() { [ -s "$group" ] && kill -0 -- "-$(<"$group")" 2>/dev/null; }

stop() {
    if running; then
        # The first of the group ends the others in order; what is left of them is killed.
        kill -TERM "$(<"$group")" 2>/dev/null || true
        for _ in $(seq 40); do running || break; sleep 0.5; done
        ! running || kill -KILL -- "-$(<"$group")" 2>/dev/null || true
    fi
    rm -f "$group"
}

start() {
    stop
    # Told to end, Ray would wait 30 seconds for tasks that will not end by then.
    export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=${RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S:-0}
    # A session of its own: it outlives the SSH connection, and its number is that of the group.
    # shellcheck disable=SC2016
    setsid --fork bash -c 'echo $$ > "$0"; exec "$@" --block' "$group" "$@" \
        > "$log" 2>&1 < /dev/null
    for _ in $(seq 120); do
        sleep 0.5
        if grep -q "Ray runtime started" "$log"; then echo "Ray is up; it writes to $log"; return; fi
        if [ -s "$group" ] && ! running; then break; fi
    done
    cat "$log" >&2
    stop
    exit 1
}

"$what" "$@"
