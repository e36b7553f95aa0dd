# syntax=docker/dockerfile:1
# check=skip=FromPlatformFlagConstDisallowed
#
# (That check wants images for any platform. This one is for Cloud Run through
# MSP, which runs linux/amd64 only: an image built on an ARM machine must not
# come out as something that fails at its start.)
#
#   docker build --build-arg VERSION=1.2.3 --build-arg COMMIT="$(git rev-parse HEAD)" -t telemetry-relay .
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

# static: CA certificates, time zones and a user 65532, but no shell and no libc.
FROM --platform=linux/amd64 gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/worker /worker
USER 65532:65532
# MSP passes no arguments: the default command does the main job, and variables
# configure it. `docker run IMAGE check` and the like run the other commands.
ENTRYPOINT ["/worker"]
CMD ["run"]
