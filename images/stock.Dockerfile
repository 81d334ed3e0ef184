# Plain Dask on Python, nothing of ours: the base of the `dask` image, and the stock peer in the tests.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE}
COPY requirements.txt constraints.txt /tmp/
RUN python3 -m venv /opt/dask \
    && /opt/dask/bin/pip install --no-cache-dir --disable-pip-version-check \
       --requirement /tmp/requirements.txt --constraint /tmp/constraints.txt \
    && rm /tmp/requirements.txt /tmp/constraints.txt
# Some programs insist on a name for their user and on a home.
RUN useradd --uid 1000 --create-home dask
COPY --chmod=755 entrypoint.sh /usr/local/bin/oxidask-entrypoint
# The commands that distributed itself no longer installs, but that manifests still name.
COPY --chmod=755 stock/dask-scheduler stock/dask-worker /usr/local/bin/
ENV PATH=/opt/dask/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
ARG VERSION=dev
LABEL org.opencontainers.image.title="oxidask stock" \
      org.opencontainers.image.description="Dask as its own project makes it, for comparison" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}"
WORKDIR /tmp
USER 1000:1000
ENTRYPOINT ["/usr/local/bin/oxidask-entrypoint"]
CMD ["python"]
