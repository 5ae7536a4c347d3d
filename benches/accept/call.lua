-- The same 2 KB chat call, with a deadline where DEFERRED=1 stands in the
-- environment.
wrk.method = "POST"
wrk.body = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"' ..
  string.rep("Classify this ticket. ", 88) .. '"}]}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-bench"
if os.getenv("DEFERRED") == "1" then
  wrk.headers["Offpeak-Deadline"] = "24h"
  wrk.headers["Prefer"] = "respond-async"
end
