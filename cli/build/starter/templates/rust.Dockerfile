# Builds {{.Name}} from source. Written by berth init; it is yours to change.
{{- range .Assumed}}
# Assumed: {{.}}.
{{- end}}

FROM rust:{{default "1" .Version}}-slim-bookworm AS build
WORKDIR /src
ENV CARGO_HOME=/cargo
COPY . .
RUN --mount=type=cache,target=/cargo \
    --mount=type=cache,target=/src/target \
    cargo build --release{{if .Locked}} --locked{{end}} && \
    install -D target/release/{{.Main}} /out/{{.Main}}

FROM debian:bookworm-slim
COPY --from=build /out/{{.Main}} /usr/local/bin/{{.Main}}
USER 65532:65532
EXPOSE {{.Port}}
ENTRYPOINT ["/usr/local/bin/{{.Main}}"]
