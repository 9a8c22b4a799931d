# Serves the pages of {{.Name}}. Written by berth init; it is yours to change.
{{- range .Assumed}}
# Assumed: {{.}}.
{{- end}}

FROM nginx:stable-alpine
COPY {{.Main}} /usr/share/nginx/html
EXPOSE {{.Port}}
