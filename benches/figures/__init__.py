"""The figures of the README: ours against stock Dask, in the same run, alternating."""
