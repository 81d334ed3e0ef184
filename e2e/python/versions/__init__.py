"""A semantic smoke run that any supported version of dask can carry out: `python -m versions`."""
