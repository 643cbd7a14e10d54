# The image of the gateway: one static program and nothing else. `scripts/image` builds the same from the sources
# here without pulling anything.
FROM rust:1.91-bookworm AS build
WORKDIR /src
COPY . .
RUN scripts/image --folder /image

FROM scratch
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="vpngw" \
      org.opencontainers.image.description="A userspace WireGuard VPN gateway that fails closed" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/bin/vpngw", "healthcheck"]
ENTRYPOINT ["/usr/bin/vpngw"]
CMD ["run"]
