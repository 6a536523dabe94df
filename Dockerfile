# A service for an exported file, without torch, as an ordinary user:
#
#     docker build -t boxwright .
#     docker run --rm --read-only -p 127.0.0.1:8000:8000 -v "$PWD/model.onnx:/model.onnx:ro" boxwright /model.onnx
#
# For checkpoints, install '.[serve]' in place of the two lines of pip, which brings torch.
FROM python:3.12-slim

COPY . /source
RUN pip install --no-cache-dir "numpy>=1.26" "pillow>=10" "pyyaml>=6" "jaxtyping>=0.3" "onnxruntime>=1.20" \
        "starlette>=0.45" "uvicorn>=0.34" "python-multipart>=0.0.20" \
    && pip install --no-cache-dir --no-deps /source \
    && rm -rf /source \
    && useradd --system --no-create-home --shell /usr/sbin/nologin --uid 10001 boxwright

USER 10001
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=2)"]
# SIGTERM, which docker stop sends, finishes what was taken.
STOPSIGNAL SIGTERM
ENTRYPOINT ["boxwright", "serve", "--host", "0.0.0.0"]
