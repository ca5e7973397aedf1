# The image of the backend, of the worker for corrections, and of the services that run once. No torch, no model.
FROM python:3.11-slim-bookworm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
# Dependencies first, so that a change of our code does not install them again.
COPY pyproject.toml constraints.txt LICENSE ./
# pip needs a README; an empty one, because each change of the real one would install everything again.
RUN touch README.md \
 && pip install -c constraints.txt ".[backend,store]" \
 && pip install -c constraints.txt --no-deps label-studio-ml label-studio-tools colorama
COPY label_config label_config
COPY osprey_model osprey_model
COPY job_queue job_queue
COPY registry registry
COPY backend backend
COPY worker worker
COPY learning learning
COPY cli cli
COPY demo demo
COPY stack stack
COPY docker docker
RUN pip install --no-deps -e . && useradd --uid 1000 --create-home osprey \
 && mkdir -p /secrets /cache /registry /exports && chown osprey /secrets /cache /registry /exports \
 && python -c "import backend.ml_backend, learning.jobs"
USER osprey
EXPOSE 9090
CMD ["osprey", "backend"]
