# Builds {{.Name}}. Written by berth init; it is yours to change.
{{- range .Assumed}}
# Assumed: {{.}}.
{{- end}}

FROM node:{{default "22" .Version}}-slim AS build
WORKDIR /app
{{- if .Deps}}
{{- if eq .Manager "npm"}}
COPY package*.json ./
RUN --mount=type=cache,target=/root/.npm \
    npm {{if .Locked}}ci{{else}}install{{end}}
{{- else if eq .Manager "yarn"}}
COPY package.json yarn.lock* .yarnrc* ./
RUN --mount=type=cache,target=/usr/local/share/.cache/yarn \
    corepack enable && yarn install{{if .Locked}} --frozen-lockfile{{end}}
{{- else}}
COPY package.json pnpm-lock.yaml* ./
RUN --mount=type=cache,target=/root/.local/share/pnpm/store \
    corepack enable && pnpm install{{if .Locked}} --frozen-lockfile{{end}}
{{- end}}
{{- end}}
COPY . .
{{- if .Script}}
RUN {{.Manager}} run {{.Script}}
{{- end}}
{{- if .Start}}
{{- if and .Deps (eq .Manager "npm")}}
RUN npm prune --omit=dev
{{- end}}

FROM node:{{default "22" .Version}}-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /app .
USER 1000:1000
EXPOSE {{.Port}}
CMD {{exec .Start}}
{{- else}}

FROM nginx:stable-alpine
COPY --from=build /app/{{.Main}} /usr/share/nginx/html
EXPOSE {{.Port}}
{{- end}}
