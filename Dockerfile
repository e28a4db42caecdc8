# jaxsim on a GPU: the machine needs an NVIDIA driver and the NVIDIA Container Toolkit, nothing else of CUDA.
#
#   docker build -t jaxsim .
#   docker run --rm --gpus all -v jaxsim-cache:/cache jaxsim doctor
#   mkdir -p runs && chmod 777 runs   # the container writes into it as user 1000
#   docker run --rm --gpus all -v jaxsim-cache:/cache -v "$PWD/runs:/work/runs" jaxsim prep build ml-100k
#   docker run --rm --gpus all -v jaxsim-cache:/cache -v "$PWD/runs:/work/runs" jaxsim train ppo --dataset ml-100k
#
# Without a GPU, build with --build-arg JAX=jax. EXTRAS adds optional packages, such as --build-arg EXTRAS=openai.
FROM python:3.12-slim

ARG JAX="jax[cuda13]"
ARG EXTRAS=""

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    JAXSIM_CACHE_DIR=/cache

WORKDIR /opt/jaxsim
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY jaxsim jaxsim
COPY agents agents
COPY prep prep
RUN pip install --constraint constraints.txt "${JAX}" ".${EXTRAS:+[$EXTRAS]}" \
    && useradd --create-home --uid 1000 researcher \
    && mkdir /cache /work \
    && chown researcher /cache /work

USER 1000
WORKDIR /work
VOLUME /cache
ENTRYPOINT ["jaxsim"]
CMD ["doctor"]
