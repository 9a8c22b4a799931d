# Builds {{.Name}} from source into an image that has nothing else in it. Written by berth init; it is yours to change.
{{- range .Assumed}}
# Assumed: {{.}}.
{{- end}}

FROM --platform=$BUILDPLATFORM golang:{{default "1" .Version}} AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOMODCACHE=/go/pkg/mod GOCACHE=/root/.cache/go-build
{{- if .Deps}}
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod download
{{- end}}
COPY . .
ARG TARGETOS TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags="-s -w" -o /out/{{.Name}} {{.Main}}

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/{{.Name}} /{{.Name}}
USER 65532:65532
EXPOSE {{.Port}}
ENTRYPOINT ["/{{.Name}}"]
