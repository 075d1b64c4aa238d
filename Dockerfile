# The operator's image: docker build --build-arg VERSION=… -t cos-operator .
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS dependencies
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.txt ./
# No pip in the environment that ships. The bytecode is never compared with its source: the image is immutable, and
# nothing could rewrite it on a read-only root file system.
RUN python -m venv --without-pip /opt/cos-operator \
    && pip --python /opt/cos-operator/bin/python install --require-hashes --no-deps --only-binary=:all: --no-compile \
        -r requirements.txt \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/cos-operator/lib

FROM dependencies AS build
COPY requirements-build.txt ./
RUN python -m venv --without-pip /opt/build \
    && pip --python /opt/build/bin/python install --require-hashes --no-deps --only-binary=:all: \
        -r requirements-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY controllers controllers
# Into a tree of its own, so that a change of the source changes one small layer of the image.
RUN pip --python /opt/build/bin/python wheel --no-index --no-deps --no-build-isolation --wheel-dir /dist . \
    && pip --python /opt/cos-operator/bin/python install --no-index --no-deps --no-compile --prefix /opt/project \
        /dist/*.whl \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/project/lib

FROM ${BASE}
# What carries backups into repositories. Debian's builds, so that fixes come with those of the base; pgBackRest is of the
# same suite as in images/postgres.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates pgbackrest restic \
    && apt-get dist-clean \
    && restic version && pgbackrest version
# An entry in passwd: libraries ask for the user's name.
RUN groupadd --gid 65532 cos-operator \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin cos-operator
ENV PATH=/opt/cos-operator/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

ARG VERSION=dev
LABEL org.opencontainers.image.title="cos-operator" \
      org.opencontainers.image.description="Kubernetes operator for the COS stack" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["cos-operator"]

# Last, what changes most.
COPY --from=dependencies /opt/cos-operator /opt/cos-operator
COPY --from=build /opt/project /opt/cos-operator
