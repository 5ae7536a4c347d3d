#!/usr/bin/env bash
# A question that is taken in at once and asked for later.
#
#     OFFPEAK=http://127.0.0.1:8080 OPENAI_API_KEY=sk-... ./curl.sh 'Why is the sky blue?'
set -euo pipefail
: "${OFFPEAK:=http://127.0.0.1:8080}"
auth="Authorization: Bearer $OPENAI_API_KEY"

# The 202 comes when the call is on Offpeak's disk; its Location is where the answer will be.
location=$(curl -sSf -D - -o /dev/null "$OFFPEAK/v1/chat/completions" \
    -H "$auth" -H 'Content-Type: application/json' \
    -H 'Offpeak-Deadline: 6h' -H 'Prefer: respond-async' \
    -d "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"$1\"}]}" |
    sed -n 's/^location: *\([^[:space:]]*\).*/\1/Ip')

# 202 while it is open; a long poll, of 60 seconds at most.
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
while status=$(curl -sS -o "$answer" -w '%{http_code}' "$OFFPEAK$location" \
    -H "$auth" -H 'Prefer: wait=60') && [[ $status == 202 ]]; do :; done
[[ $status == 200 ]] || { cat "$answer" >&2; exit 1; }
cat "$answer"
