"""What comes from outside: facts, sources and how they are fetched, the corpus, the demo's facts.

It may import `common`.
"""
