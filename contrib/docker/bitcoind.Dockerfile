# syntax=docker/dockerfile:1
# A bitcoind for compose.yaml, built as contrib/bitcoind builds it. Put your own in its place where you have one.

FROM rust:1.90-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends cmake g++ libboost-dev libevent-dev pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY contrib/bitcoind contrib/bitcoind
RUN mkdir /out && cp "$(contrib/bitcoind | tail -n 1)" /out/bitcoind

FROM debian:bookworm-slim AS runtime
RUN apt-get update && apt-get install --yes --no-install-recommends libevent-2.1-7 libevent-extra-2.1-7 libevent-pthreads-2.1-7 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 2100 outrigger \
 && useradd --uid 2101 --gid 2100 --no-create-home --home-dir /chain --shell /usr/sbin/nologin bitcoin \
 && install -d -o bitcoin -g outrigger -m 0700 /chain \
 && install -d -o bitcoin -g outrigger -m 0750 /cookie
COPY --from=build /out/bitcoind /usr/local/bin/
USER bitcoin
VOLUME /chain /cookie
STOPSIGNAL SIGTERM
ENTRYPOINT ["bitcoind", "-datadir=/chain", "-printtoconsole", "-rpccookiefile=/cookie/cookie", "-rpccookieperms=group"]
CMD ["-signet"]
