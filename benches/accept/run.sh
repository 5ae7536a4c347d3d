#!/usr/bin/env bash
# Durable accepts against this server's own pass-through, turn by turn: 2 KB chat
# calls, each answered 202 once it is on disk (one atomic write, synced), beside
# the same calls passed through to a static upstream. Prints medians.
#
#   apt-get install nginx-light wrk
#   benches/accept/run.sh
#
# Takes ROUNDS x 2 x SECONDS_EACH seconds after the build. Settings, by environment:
#   ROUNDS=5  SECONDS_EACH=4  CONNECTIONS=512  BENCH_DIR=/path/on/the/disk/to/measure
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-4}
connections=${CONNECTIONS:-512}
here=benches/accept
dir=$(mktemp -d -p "${BENCH_DIR:-/var/tmp}")
pids=()
finish() {
    kill "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT

upstream_port=$((20000 + RANDOM % 5000))
our_port=$((upstream_port + 1))
body='{"id":"chatcmpl-1","object":"chat.completion","choices":[]}'
sed -e "s|DIR|$dir|; s|UPSTREAM_PORT|$upstream_port|; s|BODY|$body|" \
    benches/passthrough/upstream.conf >"$dir/upstream.conf"
cargo build --release
nginx -p "$dir" -c "$dir/upstream.conf" 2>>"$dir/start.log" & pids+=($!)
# Nothing is packed meanwhile: this measures intake alone.
OFFPEAK_LOG=warn OFFPEAK_PACKING__LINGER=12h OFFPEAK_PACKING__MAX_LINES=10000000 \
    OFFPEAK_PACKING__MAX_BYTES=1000000000000 OFFPEAK_PACKING__MAX_EMBEDDING_INPUTS=10000000 \
    OFFPEAK_STORE__RESERVE_BYTES=0 target/release/offpeak serve \
    --listen "127.0.0.1:$our_port" --upstream "http://127.0.0.1:$upstream_port/v1" \
    --data-dir "$dir/data" >"$dir/serve.log" 2>&1 & our_pid=$!; pids+=($!)
for _ in $(seq 100); do
    grep -q listens "$dir/serve.log" && break
    sleep 0.1
done

# One turn: requests/s and p99 in milliseconds.
turn() {
    DEFERRED=$1 wrk -t1 -c"$connections" -d"${seconds}s" --latency -s "$here/call.lua" \
        "http://127.0.0.1:$our_port/v1/chat/completions" >"$dir/wrk.txt"
    if grep -qE 'Non-2xx|Socket errors' "$dir/wrk.txt"; then
        cat "$dir/wrk.txt" "$dir/serve.log" >&2
        exit 1
    fi
    awk '/Requests\/sec/ { rate = $2 }
        /99%/ { p99 = $2; scale = p99 ~ /us$/ ? 0.001 : p99 ~ /ms$/ ? 1 : 1000; sub(/[a-z]+/, "", p99) }
        END { print rate, p99 * scale }' "$dir/wrk.txt"
}
median() { sort -n | awk '{v[NR] = $1} END {print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2}'; }

for _ in $(seq "$rounds"); do
    through=$(turn 0)
    accepted=$(turn 1)
    echo "$through $accepted" >>"$dir/turns"
done

column() { awk "{print $1}" "$dir/turns" | median; }
echo "machine: $(nproc) x $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(uname -sr), load $(cut -d' ' -f1 /proc/loadavg)"
echo "$connections connections, $rounds turns of $seconds s each, server RSS $(awk '/VmRSS/ {print int($2 / 1024)}' "/proc/$our_pid/status") MB at the end"
printf 'passed through:   %.0f/s, p99 %.1f ms\n' "$(column '$1')" "$(column '$2')"
printf 'durably accepted: %.0f/s, p99 %.1f ms\n' "$(column '$3')" "$(column '$4')"
printf 'accepted / passed through: %.2f\n' "$(column '$3/$1')"
