"""A question whose answer may take six hours, at half the price.

    pip install openai
    OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=sk-... python python.py "Why is the sky blue?"
"""

import os
import sys

from openai import OpenAI

client = OpenAI(default_headers={"Offpeak-Deadline": "6h"}, timeout=6 * 3600)
raw = client.chat.completions.with_raw_response.create(
    model=os.environ.get("MODEL", "gpt-4o-mini"),
    messages=[{"role": "user", "content": sys.argv[1]}],
)
print(raw.parse().choices[0].message.content)
print("by", raw.headers["offpeak-lane"], "because:", raw.headers["offpeak-reason"])
