"""Python that Oxidask's Rust processes run in child interpreters.

Packed into the binaries as a zip; needs dask and distributed of the user's environment and nothing else.
``boot`` is where a child starts, ``wire`` how it talks to its parent.
"""
