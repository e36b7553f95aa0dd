# The binary is for linux/amd64, which is what Cloud Run runs through MSP:
#
#   docker build --platform linux/amd64 --build-arg VERSION=1.2.3 --build-arg COMMIT="$(git rev-parse HEAD)" -t telemetry-relay .
#
# The same sources, version, commit and toolchain give the same binary, byte by
# byte, wherever it is built: the toolchain is pinned to the patch, and Go takes
# no other. The CA certificates are those of the base image.
#
# The base image is pinned by its digest, so that nobody can replace it under its
# tag. To renew it, for a new release of Go or new certificates, put the tag here that
# go.mod's go line names, and the digest that this prints:
#
#   docker buildx imagetools inspect golang:1.26.8-bookworm --format '{{.Manifest.Digest}}'
#
# There is no syntax line: BuildKit's own frontend knows all that is used here, and
# no image of another one is fetched.

FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm@sha256:a688600ca24f8a4d3ca77f95b0dd40704a9fc787c826660eb7ba0b641b8b175d AS build
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
RUN deploy/image/licenses.sh /out/worker /out/licenses

# Nothing but the worker, the CA certificates, and the licences of what is in it: no
# shell and no libc.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/licenses /licenses
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
