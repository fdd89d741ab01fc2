# Training with PyTorch: the only image that has a compiler's worth of libraries, and it serves nothing.
# Build from the repository's root.
FROM python:3.13-slim-trixie AS packages
RUN --mount=type=bind,source=requirements/image-train.txt,target=/requirements.txt \
    python3 -m venv --without-pip /opt/venv && \
    python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes \
        --only-binary=:all: -r /requirements.txt

FROM python:3.13-slim-trixie
COPY --from=packages /opt/venv /opt/venv
# A named volume takes this folder's mode: whoever runs the container may write checkpoints.
RUN mkdir -m 1777 /training
WORKDIR /app
COPY classifier classifier
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
USER 10001:10001
ENTRYPOINT ["python", "-m", "classifier"]
CMD ["--help"]
