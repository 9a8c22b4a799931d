# Builds {{.Name}}'s jar from source and runs it. Written by berth init; it is yours to change.
{{- range .Assumed}}
# Assumed: {{.}}.
{{- end}}
# Assumed: the jar has a main class, and what it needs, in it.

{{if .Wrapper -}}
FROM eclipse-temurin:{{default "21" .Version}} AS build
{{- else if eq .Manager "maven" -}}
FROM maven:3-eclipse-temurin-{{default "21" .Version}} AS build
{{- else -}}
FROM gradle:8-jdk{{default "21" .Version}} AS build
{{- end}}
WORKDIR /src
COPY . .
{{- if eq .Manager "maven"}}
RUN --mount=type=cache,target=/root/.m2 \
    {{if .Wrapper}}./mvnw{{else}}mvn{{end}} --batch-mode --no-transfer-progress -DskipTests package && \
    find target -maxdepth 1 -name '*.jar' ! -name '*-sources.jar' ! -name '*-javadoc.jar' -exec cp {} /app.jar ';'
{{- else}}
RUN --mount=type=cache,target=/root/.gradle \
    GRADLE_USER_HOME=/root/.gradle {{if .Wrapper}}./gradlew{{else}}gradle{{end}} --no-daemon assemble && \
    find build/libs -name '*.jar' ! -name '*-plain.jar' ! -name '*-sources.jar' -exec cp {} /app.jar ';'
{{- end}}

FROM eclipse-temurin:{{default "21" .Version}}-jre
WORKDIR /app
COPY --from=build /app.jar app.jar
USER 65532:65532
EXPOSE {{.Port}}
ENTRYPOINT ["java", "-jar", "app.jar"]
