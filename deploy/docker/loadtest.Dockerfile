# The load generator and the simulated LLMs. Build from the repository's root.
FROM python:3.13-slim-trixie AS packages
RUN --mount=type=bind,source=requirements/image-loadtest.txt,target=/requirements.txt \
    python3 -m venv --without-pip /opt/venv && \
    python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes \
        --only-binary=:all: -r /requirements.txt

FROM python:3.13-slim-trixie
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY loadtest loadtest
COPY classifier/data/prompts classifier/data/prompts
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT ["python", "-m"]
CMD ["loadtest.simulated_llm", "--help"]
