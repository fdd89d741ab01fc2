# vLLM as a user of its own, with a home that a volume can keep. Build from the repository's root.
FROM vllm/vllm-openai:v0.33.0
RUN useradd --uid 10001 --create-home vllm
ENV HOME=/home/vllm
USER 10001:10001
ENTRYPOINT ["vllm", "serve"]
