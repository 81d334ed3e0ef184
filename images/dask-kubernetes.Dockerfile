# Dask with its own Kubernetes package: the stock operator, and the client whose `KubeCluster` must work with ours.
ARG BASE=localhost/oxidask/stock:dev
FROM ${BASE}
USER 0:0
COPY dask-kubernetes-requirements.txt constraints.txt /tmp/
RUN /opt/dask/bin/pip install --no-cache-dir --disable-pip-version-check \
    --requirement /tmp/dask-kubernetes-requirements.txt --constraint /tmp/constraints.txt \
    && rm /tmp/dask-kubernetes-requirements.txt /tmp/constraints.txt
ARG VERSION=dev
LABEL org.opencontainers.image.title="oxidask dask-kubernetes" \
      org.opencontainers.image.description="The stock operator and KubeCluster, for comparison" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}"
USER 1000:1000
