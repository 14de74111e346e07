# The image of callbackd. It holds the binary, the CA bundle that librdkafka reads, the libraries that the binary needs, and
# the files of the base image.
#
#   docker build --tag callbackd .
#   docker run --volume store:/var/lib/callbackd --volume ./my-config:/etc/callbackd:ro --stop-timeout 60 callbackd
#
# The builder and the runtime use the same Debian, because librdkafka links OpenSSL, zlib and zstd dynamically.

FROM rust:1.95-trixie AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ make pkg-config libssl-dev zlib1g-dev libzstd-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches remain after a build and are not part of the image, so the binary is copied out of them.
RUN --mount=type=cache,id=callbackd-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=callbackd-target,target=/src/target \
    cargo build --release --locked --package callbackd \
 && strip --strip-debug -o /callbackd target/release/callbackd

FROM debian:trixie-slim
# ca-certificates is for TLS to Kafka. The roots for receivers are compiled into the binary.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libssl3t64 zlib1g libzstd1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/callbackd --shell /usr/sbin/nologin callbackd \
 && install --directory --owner=callbackd --group=callbackd --mode=0700 /var/lib/callbackd
COPY --from=build /callbackd /usr/local/bin/callbackd
ENV CALLBACKD_CONFIG=/etc/callbackd/callbackd.toml
# The user is given as a number, so that a runtime can check that it is not root.
USER 10001:10001
# Use a named volume: the record of every callback is here and nowhere else.
VOLUME /var/lib/callbackd
# 9464 is for probes and metrics, and 9465 is for the API. Both listen on 127.0.0.1 unless ops.listen and api.listen name
# another address.
EXPOSE 9464 9465
# A clean stop takes up to a minute (shutdown.grace, then the last batch). Run the container with --stop-timeout 60,
# because the default is 10 s.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["callbackd", "healthcheck"]
ENTRYPOINT ["callbackd"]
CMD ["run"]
