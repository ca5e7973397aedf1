# The image of the workers with models: SAM and Osprey. It uses the CPU if there is no GPU.
FROM python:3.11-slim-bookworm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
# torch in a layer of its own, because it is most of the image and rarely changes.
COPY constraints.txt ./
RUN pip install -c constraints.txt torch torchvision
COPY pyproject.toml LICENSE ./
# pip needs a README; an empty one, because each change of the real one would install everything again.
RUN touch README.md \
 && pip install -c constraints.txt ".[worker,train,store]"
COPY label_config label_config
COPY osprey_model osprey_model
COPY job_queue job_queue
COPY registry registry
COPY backend backend
COPY worker worker
COPY learning learning
COPY cli cli
COPY demo demo
COPY docker docker
RUN pip install --no-deps -e . && useradd --uid 1000 --create-home osprey \
 && mkdir -p /cache /registry /exports && chown osprey /cache /registry /exports
USER osprey
CMD ["osprey", "worker", "--queues", "masks,describe", "--device", "auto"]
