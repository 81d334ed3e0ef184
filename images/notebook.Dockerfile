# JupyterLab with the Dask client and the tutorial, as notebooks and as the package that they come from.
# Also the image for workers that run the tutorial: its tasks need the same libraries.
# Our programs come last, so that a change of them does not install the libraries again.
ARG BASE=localhost/oxidask/stock:dev
FROM ${BASE}
USER 0:0
COPY notebook-requirements.txt constraints.txt /tmp/
RUN /opt/dask/bin/pip install --no-cache-dir --disable-pip-version-check \
    --requirement /tmp/notebook-requirements.txt --constraint /tmp/constraints.txt \
    && rm /tmp/notebook-requirements.txt /tmp/constraints.txt
COPY --chown=1000:1000 tutorial /home/dask/tutorial
COPY notebooks.py /tmp/
RUN python3 /tmp/notebooks.py /home/dask/tutorial /home/dask \
    && rm /tmp/notebooks.py && chown 1000:1000 /home/dask/*.ipynb
COPY --chmod=755 bin/dask-scheduler bin/dask-worker /usr/local/bin/
COPY --chmod=755 dask cli.py install.sh /usr/local/oxidask/
RUN /usr/local/oxidask/install.sh
ENV PATH=/usr/local/oxidask/bin:${PATH}
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.title="oxidask notebook" \
      org.opencontainers.image.description="JupyterLab with the Dask client and the tutorial" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /home/dask
USER 1000:1000
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser"]
