# The router. Build from the repository's root; `make pin` fills in the digests of the base images.
FROM python:3.13-slim-trixie AS packages
RUN --mount=type=bind,source=requirements/image-router.txt,target=/requirements.txt \
    python3 -m venv --without-pip /opt/venv && \
    python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes \
        --only-binary=:all: -r /requirements.txt

FROM python:3.13-slim-trixie
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY router router
RUN install -d -o 10001 -g 10001 -m 700 /var/lib/llm-router
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8084 8085
ENTRYPOINT ["python", "-m", "router"]
CMD ["serve", "--config", "/etc/llm-router/router.yaml"]
