# One static program; no shell, no libraries. It trusts the certificate authority of its service account.
FROM scratch
COPY --chmod=755 bin/oxidask-operator /oxidask-operator
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.title="oxidask operator" \
      org.opencontainers.image.description="Kubernetes operator for Dask clusters" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
ENTRYPOINT ["/oxidask-operator"]
