# callbackd in a container: the binary, the CA bundle that librdkafka reads, and nothing else of ours.
#
#   docker build --tag callbackd .
#   docker run --volume store:/var/lib/callbackd --volume ./my-config:/etc/callbackd:ro --stop-timeout 60 callbackd
#
# Builder and runtime are the same Debian: librdkafka links its OpenSSL, zlib and zstd dynamically.

FROM rust:1.95-trixie AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ make pkg-config libssl-dev zlib1g-dev libzstd-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches outlive a build and are not in the image; the binary is copied out of them.
RUN --mount=type=cache,id=callbackd-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=callbackd-target,target=/src/target \
    cargo build --release --locked --package callbackd \
 && strip --strip-debug -o /callbackd target/release/callbackd

FROM debian:trixie-slim
# ca-certificates is for TLS to Kafka; the roots for receivers are compiled in.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libssl3t64 zlib1g libzstd1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/callbackd --shell /usr/sbin/nologin callbackd \
 && install --directory --owner=callbackd --group=callbackd --mode=0700 /var/lib/callbackd
COPY --from=build /callbackd /usr/local/bin/callbackd
ENV CALLBACKD_CONFIG=/etc/callbackd/callbackd.toml
# As a number, so that "must not run as root" can be checked.
USER 10001:10001
# Give it a named volume: the record of every callback is here, and nowhere else.
VOLUME /var/lib/callbackd
# Probes and metrics; the API. Both listen on 127.0.0.1 until ops.listen and api.listen say otherwise.
EXPOSE 9464 9465
# It drains for up to a minute (shutdown.grace, then the last batch): give it --stop-timeout 60, the usual is 10 s.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["callbackd", "healthcheck"]
ENTRYPOINT ["callbackd"]
CMD ["run"]
