# One image for every process; docker-compose.yml says which one a container runs.
FROM python:3.13-slim

RUN useradd --create-home --uid 10001 kazheng \
    && install -d -o kazheng -g kazheng /app /images /metrics
WORKDIR /app

COPY requirements.lock .
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock

COPY --chown=kazheng:kazheng pyproject.toml README.md ./
COPY --chown=kazheng:kazheng api api
COPY --chown=kazheng:kazheng worker worker
COPY --chown=kazheng:kazheng shared shared
COPY --chown=kazheng:kazheng sandbox sandbox
COPY --chown=kazheng:kazheng client client
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

USER kazheng
ENV PYTHONUNBUFFERED=1 KAZHENG_HOME=/app/.kazheng PROMETHEUS_MULTIPROC_DIR=/metrics
CMD ["kazheng", "--help"]
