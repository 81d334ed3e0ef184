"""A pytest plugin that runs test functions of dask and distributed, unchanged, on processes
that were started by any command and are observed over the wire alone."""
