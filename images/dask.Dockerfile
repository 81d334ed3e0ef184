# Scheduler and worker in one image, since `KubeCluster` and most manifests name one image for both.
# BASE may be any image with a Python that has dask: every command that starts a scheduler or a worker leads to ours.
ARG BASE=localhost/oxidask/stock:dev
FROM ${BASE}
USER 0:0
COPY --chmod=755 bin/dask-scheduler bin/dask-worker bin/oxidask /usr/local/bin/
COPY --chmod=755 dask cli.py install.sh /usr/local/oxidask/
RUN /usr/local/oxidask/install.sh
ENV PATH=/usr/local/oxidask/bin:${PATH}
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.title="oxidask" \
      org.opencontainers.image.description="Dask with a scheduler and a worker written in Rust" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 1000:1000
EXPOSE 8786 8787 8788
CMD ["dask-scheduler"]
