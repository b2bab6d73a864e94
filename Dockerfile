# One image for every service: what runs is the command. `make image-trial` executes each step.
# For a build that is the same to the byte next year, name the base image by its digest as well:
# everything that is installed on it comes from the lock files, with hashes.

FROM python:3.12-slim AS build
# Only wheels: no compiler is needed, here or later. The date goes into what is built, so that
# building twice gives the same files, and .pyc files that don't depend on when they were copied.
ENV PIP_ONLY_BINARY=:all: PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore SOURCE_DATE_EPOCH=315532800
WORKDIR /src
COPY requirements.lock requirements-build.lock requirements-page.lock ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes -r requirements-build.lock
RUN python -m venv --without-pip /opt/mdp \
    && python -m pip --python /opt/mdp/bin/python install --require-hashes -r requirements.lock
RUN python -m pip install --no-deps --no-compile --require-hashes --target /page -r requirements-page.lock
COPY pyproject.toml README.md LICENSE ./
COPY api api
COPY db db
COPY mdp_core mdp_core
COPY scripts scripts
COPY syncer syncer
RUN python scripts/dev/page_files.py /page api/static/third_party \
    && /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && python -m pip --python /opt/mdp/bin/python install --no-deps --no-index /dist/*.whl

FROM python:3.12-slim
# Nothing can be installed in what runs, and nobody there owns what it runs.
RUN groupadd --gid 10001 mdp \
    && useradd --uid 10001 --gid mdp --no-create-home --home-dir /nonexistent mdp \
    && rm -rf /usr/local/lib/python3.12/site-packages/pip* \
        /usr/local/lib/python3.12/ensurepip /usr/local/bin/pip* \
    # Compiled once, here: the base image leaves that to each start. By hash, so that it is the same.
    && python -m compileall -q --invalidation-mode unchecked-hash \
        -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo)/' /usr/local/lib/python3.12
COPY --from=build /opt/mdp /opt/mdp
ENV PATH=/opt/mdp/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /
USER mdp
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["mdp"]
CMD ["api", "--host", "0.0.0.0", "--port", "8000"]
