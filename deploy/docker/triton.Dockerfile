# NVIDIA's Triton with what prompt_classifier imports. Build from the repository's root. The models are mounted.
FROM nvcr.io/nvidia/tritonserver:26.11-py3
USER 0:0
# Into the system's packages, because that is where the python backend looks.
RUN --mount=type=bind,source=requirements/image-triton.txt,target=/requirements.txt \
    python3 -m pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: --break-system-packages \
        -r /requirements.txt && \
    install -d -o 10001 -g 10001 /run/triton /var/cache/triton
COPY --chmod=755 deploy/docker/start-triton.sh /usr/local/bin/start-triton
# TensorRT's engines and a CPU's int8 weights, made at the first start.
ENV PROMPT_CLASSIFIER_CACHE=/var/cache/triton
ENV ORT_DISABLE_TELEMETRY=1
USER 10001:10001
EXPOSE 8000 8001 8002
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "start-triton"]
CMD ["--model-repository=/models", "--model-control-mode=explicit", "--load-model=prompt_classifier"]
