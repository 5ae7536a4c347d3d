#!/usr/bin/env bash
# Pass-through against nginx `proxy_pass`: the same static upstream, the same
# load, turn by turn. Prints medians of the turns' ratios; above 1.00 is better
# than nginx.
#
#   apt-get install nginx-light wrk
#   benches/passthrough/run.sh
#
# Takes ROUNDS x 2 x SECONDS_EACH seconds after the build. Settings, by environment:
#   ROUNDS=9  SECONDS_EACH=3  CONNECTIONS=64
#   PROXY='target/release/offpeak serve --listen LISTEN --upstream UPSTREAM'
#     another proxy to measure; LISTEN and UPSTREAM are filled in. Unset: the
#     bare pass-through of main.rs.
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=${ROUNDS:-9}
seconds=${SECONDS_EACH:-3}
connections=${CONNECTIONS:-64}
here=benches/passthrough
dir=$(mktemp -d)
pids=()
finish() {
    kill "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT

free_port() {
    local port
    while port=$((20000 + RANDOM % 10000)); do
        (: </dev/tcp/127.0.0.1/"$port") 2>/dev/null || { echo "$port"; return; }
    done
}
wait_for() {
    for _ in $(seq 100); do
        (: </dev/tcp/127.0.0.1/"$1") 2>/dev/null && return
        sleep 0.1
    done
    echo "nothing listens on port $1" >&2
    cat "$dir"/*.log >&2
    exit 1
}

upstream_port=$(free_port)
nginx_port=$(free_port)
our_port=$(free_port)
body='{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"'
body+=$(printf 'x%.0s' $(seq 500))
body+='"},"finish_reason":"stop"}],"usage":{"prompt_tokens":75,"completion_tokens":125,"total_tokens":200}}'
for name in upstream nginx; do
    sed -e "s|DIR|$dir|; s|UPSTREAM_PORT|$upstream_port|; s|NGINX_PORT|$nginx_port|; s|BODY|$body|" \
        "$here/$name.conf" >"$dir/$name.conf"
done

if [ -z "${PROXY:-}" ]; then
    binary=$(cargo build --release --bench passthrough --message-format=json |
        sed -n 's/.*"name":"passthrough".*"executable":"\([^"]*\)".*/\1/p')
    PROXY="$binary --listen LISTEN --upstream UPSTREAM"
fi
PROXY=${PROXY//LISTEN/127.0.0.1:$our_port}
PROXY=${PROXY//UPSTREAM/http://127.0.0.1:$upstream_port/v1}

nginx -p "$dir" -c "$dir/upstream.conf" 2>>"$dir/start.log" & pids+=($!)
nginx -p "$dir" -c "$dir/nginx.conf" 2>>"$dir/start.log" & nginx_pid=$!; pids+=($!)
$PROXY >"$dir/proxy.log" 2>&1 & our_pid=$!; pids+=($!)
wait_for "$upstream_port"
wait_for "$nginx_port"
wait_for "$our_port"

ticks() { awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$1/stat"; }
# One turn: requests/s and microseconds of CPU a request.
turn() {
    local pid=$1 port=$2 before after
    before=$(ticks "$pid")
    wrk -t1 -c"$connections" -d"${seconds}s" -s "$here/chat.lua" \
        "http://127.0.0.1:$port/v1/chat/completions" >"$dir/wrk.txt"
    after=$(ticks "$pid")
    if grep -qE 'Non-2xx|Socket errors' "$dir/wrk.txt"; then
        cat "$dir/wrk.txt" >&2
        exit 1
    fi
    awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '
        /requests in/ { count = $1 } /Requests\/sec/ { rate = $2 }
        END { print rate, ticks / hz / count * 1e6 }' "$dir/wrk.txt"
}
median() { sort -n | awk '{v[NR] = $1} END {print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2}'; }

for _ in $(seq "$rounds"); do
    theirs=$(turn "$nginx_pid" "$nginx_port")
    ours=$(turn "$our_pid" "$our_port")
    echo "$theirs $ours" >>"$dir/turns"
done

column() { awk "{print $1}" "$dir/turns" | median; }
echo "machine: $(nproc) x $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(uname -sr), load $(cut -d' ' -f1 /proc/loadavg)"
echo "against: $(nginx -v 2>&1 | sed 's/.*: //'), $connections connections, $rounds turns of $seconds s each"
printf 'nginx:   %.0f requests/s, %.1f us CPU a request\n' "$(column '$1')" "$(column '$2')"
printf 'offpeak: %.0f requests/s, %.1f us CPU a request\n' "$(column '$3')" "$(column '$4')"
printf 'requests/s, ours / nginx:         %.2f\n' "$(column '$3/$1')"
printf 'CPU a request, nginx / ours:      %.2f\n' "$(column '$2/$4')"
