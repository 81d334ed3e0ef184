# JupyterLab with the Dask client and the tutorial.
ARG BASE=localhost/oxidask/dask:dev
FROM ${BASE}
USER 0:0
COPY notebook-requirements.txt constraints.txt /tmp/
RUN /opt/dask/bin/pip install --no-cache-dir --disable-pip-version-check \
    --requirement /tmp/notebook-requirements.txt --constraint /tmp/constraints.txt \
    && rm /tmp/notebook-requirements.txt /tmp/constraints.txt
COPY --chown=1000:1000 tutorial /home/dask/tutorial
ARG VERSION=dev
LABEL org.opencontainers.image.title="oxidask notebook" \
      org.opencontainers.image.description="JupyterLab with the Dask client and the tutorial" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
WORKDIR /home/dask/tutorial
USER 1000:1000
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser"]
