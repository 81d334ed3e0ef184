# Scheduler and worker in one image, since `KubeCluster` and most manifests name one image for both.
# BASE may be any image with a Python that has dask: every command that starts a scheduler or a worker leads to ours.
ARG BASE=localhost/oxidask/stock:dev
FROM ${BASE}
USER 0:0
COPY --chmod=755 bin/dask-scheduler bin/dask-worker /usr/local/bin/
# First on the path, before the `dask` of the Python environment.
COPY --chmod=755 dask /usr/local/oxidask/bin/dask
COPY cli.py /usr/local/oxidask/
RUN ln -s /usr/local/bin/dask-scheduler /usr/local/bin/dask-worker /usr/local/oxidask/bin/ \
    && packages=$(python3 -c 'import distributed.cli; print(distributed.cli.__path__[0])') \
    && for command in dask_scheduler dask_worker; do cp /usr/local/oxidask/cli.py "$packages/$command.py"; done \
    && rm /usr/local/oxidask/cli.py
ENV PATH=/usr/local/oxidask/bin:/opt/dask/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ARG VERSION=dev
LABEL org.opencontainers.image.title="oxidask" \
      org.opencontainers.image.description="Dask with a scheduler and a worker written in Rust" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
USER 1000:1000
EXPOSE 8786 8787 8788
CMD ["dask-scheduler"]
