# syntax=docker/dockerfile:1
# One image for Mixer and for stand-alone backends:
#   docker run -v ./mixer.yaml:/etc/mixer/mixer.yaml:ro -p 50051:50051 -p 9464:9464 mixer
#   docker run -v ./index:/data --entrypoint python mixer -m backends serve --kind tantivy --index /data --listen 0.0.0.0:50061
# Models are mounted under /models, or baked in by an image of two lines: FROM mixer / COPY models/ /models/
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The environment holds no pip of its own; this stage's pip fills it from outside.
RUN python -m venv --without-pip /opt/mixer
WORKDIR /src
# Dependencies come first: they change less often than the code, and stay cached.
# The clients of all engines, stores and sinks are in it.
COPY requirements-image.lock ./
RUN pip --python /opt/mixer/bin/python install --require-hashes --only-binary :all: -r requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY backends backends
COPY models models
COPY mixer mixer
RUN pip --python /opt/mixer/bin/python install --no-deps .

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="mixer" \
      org.opencontainers.image.description="A re-ranking mixer service for search" \
      org.opencontainers.image.licenses="Apache-2.0"
# LightGBM needs the OpenMP runtime. Unpinned: Debian keeps only the newest build of a release, a pin would break.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
# A number, so that Kubernetes can tell it is not root.
RUN groupadd --gid 10001 mixer \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin mixer \
    && install -d -o 10001 -g 10001 /models /data /etc/mixer
COPY --from=builder /opt/mixer /opt/mixer
# The scorer compiles its kernels when it first starts, some seconds, and keeps them where it may write.
ENV NUMBA_CACHE_DIR=/tmp/numba
ENV PATH=/opt/mixer/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 HOME=/tmp
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
# For plain Docker; Kubernetes has its own probes. Turn it off (--no-healthcheck) where the image runs a backend.
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/readyz', timeout=2)"]
ENTRYPOINT ["mixer"]
CMD ["serve", "--config", "/etc/mixer/mixer.yaml"]
