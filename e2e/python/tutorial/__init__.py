"""The programs of Dask's tutorial, each checked against a result computed without Dask."""
