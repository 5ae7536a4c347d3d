-- A chat completion as openai-python sends it.
wrk.method = "POST"
wrk.body = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"'
  .. string.rep("x", 300) .. '"}]}'
wrk.headers["accept"] = "application/json"
wrk.headers["authorization"] = "Bearer sk-bench"
wrk.headers["content-type"] = "application/json"
wrk.headers["user-agent"] = "OpenAI/Python 3.54.0"
wrk.headers["x-stainless-lang"] = "python"
wrk.headers["x-stainless-os"] = "Linux"
wrk.headers["x-stainless-retry-count"] = "0"
wrk.headers["x-stainless-read-timeout"] = "600"
