# An image with all packages of requirements.lock, ffmpeg and this checkout in /opt/mscl. It runs without root, under any user.
#   docker build --tag mscl .                          # for CPUs; --build-arg PIP_EXTRA_INDEX_URL=… as README.md says, or it is several GB larger
#   docker build --tag mscl:cuda --build-arg KIND=cuda .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" mscl snakemake --snakefile /opt/mscl/Snakefile --cores all --configfile my.yaml
FROM python:3.11-slim-bookworm
ARG KIND=cpu
ARG PIP_EXTRA_INDEX_URL
COPY requirements.lock requirements-cuda.lock workflow/envs/apt.txt workflow/envs/install.sh /opt/mscl-packages/
RUN sh /opt/mscl-packages/install.sh "$KIND"
COPY pyproject.toml README.md LICENSE config.yaml Snakefile /opt/mscl/
COPY workflow /opt/mscl/workflow
COPY profiles /opt/mscl/profiles
COPY slurm /opt/mscl/slurm
COPY config /opt/mscl/config
COPY mscl /opt/mscl/mscl
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation --editable /opt/mscl
# A user whom the image does not know has neither a name nor a folder: what programs keep goes to /tmp.
ENV HOME=/tmp USER=mscl LOGNAME=mscl PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /work
CMD ["mscl", "--help"]
