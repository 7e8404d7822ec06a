# TORCH_OPTIONS are pip's options for PyTorch, for the CPU alone or another CUDA (docs/install.md).
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
COPY . /src
RUN pip wheel --no-deps --wheel-dir /wheel /src

FROM python:${PYTHON}-slim
ARG TORCH_OPTIONS=
# GDAL in rasterio's wheel takes expat from the system.
RUN apt-get update && apt-get install --no-install-recommends -y libexpat1 && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir $TORCH_OPTIONS "torch>=2.11,<2.16" "torchvision>=0.26,<0.30"
COPY --from=build /wheel /wheel
RUN pip install --no-cache-dir /wheel/*.whl && rm -r /wheel
# Under `--user` there is no home folder to keep caches in.
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["gravmap"]
CMD ["--help"]
