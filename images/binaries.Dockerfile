# Nothing but the static programs, for an init container that brings them into any image.
FROM scratch
COPY --chmod=755 bin/dask-scheduler bin/dask-worker /
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.title="oxidask binaries" \
      org.opencontainers.image.description="Static dask-scheduler and dask-worker" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
