"""The requests that a backend answers, a round trip each, and their replies.

A backend knows ids, bytes and references between stored objects; it knows neither
msgpack nor any type of LangGraph.
"""
