"""A run behind an OpenAI-compatible endpoint: several adapters on one base, A/B by weight, and what people thought of the answers.

target.py      what a folder offers: base, adapters, the system message of training
engine.py      one thread owns torch: requests join a running batch at any step, each row by its own adapter
wire.py        the requests and replies of the protocol, and its errors
split.py       user -> arm, by weight and sticky
journal.py     answers and feedback: a log that takes each at once, DuckDB for people
app.py         the routes over aiohttp, start and stop
sequential.py  intervals that hold however often one looks
ab.py          arms compared by what people said
vllm.py        the same folder and names on vLLM
"""
