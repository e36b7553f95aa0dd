# syntax=docker/dockerfile:1
#
# The binary is for linux/amd64, which is what Cloud Run runs through MSP:
#
#   docker build --platform linux/amd64 --build-arg VERSION=1.2.3 --build-arg COMMIT="$(git rev-parse HEAD)" -t telemetry-relay .
#
# Base images are pinned by tag: a rebuild takes in their security patches. A
# release pipeline that wants repeatable builds pins digests instead
# (`golang:1.26-bookworm@sha256:…`), and then needs something that updates them.

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
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
USER 65532:65532
# MSP passes no arguments: the default command does the main job, and variables
# configure it. `docker run IMAGE check` and the like run the other commands.
ENTRYPOINT ["/worker"]
CMD ["run"]
