# The server, for CPUs and NVIDIA GPUs alike: on a host with NVIDIA's container toolkit, `--gpus all` brings the driver, and nothing else is
# needed. docs/deploy.md says how to run it.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
ARG TARGETARCH
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,id=target-$TARGETARCH \
    cargo build --release --locked && cp target/release/voxtral /usr/local/bin/ \
    && packaging/third_party.py licences > THIRD-PARTY.txt

FROM debian:bookworm-slim
COPY --from=build /usr/local/bin/voxtral /usr/local/bin/
COPY --from=build /src/LICENSE /src/NOTICE /src/THIRD-PARTY.txt /usr/share/doc/voxtral/
# Models are kept in the volume; `voxtral download` puts them there.
RUN useradd --uid 10001 --no-create-home --home-dir /models voxtral && install -d -o voxtral -g voxtral /models
ENV HF_HUB_CACHE=/models \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
VOLUME /models
USER 10001:10001
EXPOSE 8000
# There is no curl in the image, but bash can talk to a socket.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r status <&3 && [[ $status == *' 200 '* ]]"]
ENTRYPOINT ["voxtral"]
CMD ["serve", "--listen", "0.0.0.0:8000"]
