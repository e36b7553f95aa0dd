# syntax=docker/dockerfile:1
#
# The binary is for linux/amd64, which is what Cloud Run runs through MSP:
#
#   docker build --platform linux/amd64 --build-arg VERSION=1.2.3 --build-arg COMMIT="$(git rev-parse HEAD)" -t telemetry-relay .
#
# The same sources, version, commit and toolchain give the same binary, byte by
# byte, wherever it is built: the toolchain is pinned to the patch, and Go takes
# no other. The CA certificates are those of the base image; a release pipeline
# that wants the same image of them, too, pins its digest
# (`golang:1.26.8-bookworm@sha256:…`).

FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
ENV GOTOOLCHAIN=local
WORKDIR /src
# The modules first: they change seldom, so this layer is mostly cached.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG COMMIT=unknown
# Static, and the same bytes for the same sources wherever it is built.
RUN CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.buildVersion=${VERSION} -X main.buildCommit=${COMMIT}" \
    -o /out/worker ./cmd/worker

# Nothing but the worker and the CA certificates: no shell and no libc.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/worker /worker
ARG VERSION=dev
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="telemetry-relay" \
      org.opencontainers.image.source="https://github.com/sourcegraph/telemetry-relay" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
USER 65532:65532
# MSP passes no arguments: the default command does the main job, and variables
# configure it. `docker run IMAGE check` and the like run the other commands.
ENTRYPOINT ["/worker"]
CMD ["run"]
