"""Recorded suites as an OpenAI-compatible endpoint, for tests, demos and users' own CI.

Serves what was recorded and nothing else: the model's name picks the recording, messages
and tools pick the case, and a question that nobody recorded is a 404 that names the
nearest one.
"""

from langchain_slm.replay.server import ReplayServer as ReplayServer
