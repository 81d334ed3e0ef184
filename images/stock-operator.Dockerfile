# The stock operator with the entry point that its chart expects.
ARG BASE=localhost/oxidask/dask-kubernetes:dev
FROM ${BASE}
ARG VERSION=dev
LABEL org.opencontainers.image.title="oxidask stock operator" \
      org.opencontainers.image.description="The operator of dask-kubernetes, for comparison" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}"
ENTRYPOINT ["kopf", "run", "--module=dask_kubernetes.operator.controller"]
