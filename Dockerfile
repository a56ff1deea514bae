# The service, without root, without a shell's help, on a read-only file system. Nothing is compiled: every package is a
# wheel from the lock, checked by its hash.
#
#   podman build --build-arg REVISION=$(git rev-parse HEAD) --tag registry.example.com/knative-lambda-builder:0.1.0 .
#
# The base needs python3 (3.11 or newer) with venv; both stages use the same one. Pin it by digest for production.
ARG BASE_IMAGE=docker.io/library/python:3.13.9-slim-trixie

FROM ${BASE_IMAGE} AS packages
COPY scripts/requirements-image.txt /src/
RUN python3 -m venv /opt/builder \
    && /opt/builder/bin/python3 -m pip install --no-cache-dir --disable-pip-version-check --only-binary=:all: \
        --require-hashes -r /src/requirements-image.txt \
    && /opt/builder/bin/python3 -m pip uninstall --yes --quiet pip setuptools
COPY builder /src/builder
RUN packages=$(/opt/builder/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
    && cp -r /src/builder "$packages/" \
    && printf '#!/opt/builder/bin/python3\nimport sys\nfrom builder.cli import main\nsys.exit(main())\n' \
        > /opt/builder/bin/knative-lambda-builder \
    && chmod 755 /opt/builder/bin/knative-lambda-builder \
    && /opt/builder/bin/python3 -m compileall -q "$packages/builder" \
    && find "$packages" -type d -name tests -prune -exec rm -r {} +

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="knative-lambda-builder" \
      org.opencontainers.image.description="CloudEvents in, exactly one right Kaniko Job out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=packages /opt/builder /opt/builder
# The journal's place: mount a volume there, or set custody to sender or broker.
ENV PATH=/opt/builder/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    BUILDER_JOURNAL__PATH=/var/lib/knative-lambda-builder/journal.sqlite3
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8080') + '/health/live', timeout=2)"]
ENTRYPOINT ["knative-lambda-builder"]
CMD ["serve"]
