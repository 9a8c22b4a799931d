# Runs {{.Name}}. Written by berth init; it is yours to change.
{{- range .Assumed}}
# Assumed: {{.}}.
{{- end}}
{{if or .Deps .Package}}
FROM python:{{default "3" .Version}}-slim AS build
RUN python3 -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /src
{{- if .Deps}}
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -r requirements.txt
{{- else}}
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install .
{{- end}}
{{end}}
FROM python:{{default "3" .Version}}-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
{{- if or .Deps .Package}}
ENV PATH=/venv/bin:$PATH
COPY --from=build /venv /venv
{{- end}}
WORKDIR /app
COPY . .
USER 65532:65532
EXPOSE {{.Port}}
CMD {{exec .Start}}
