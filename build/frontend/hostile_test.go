package frontend

import (
	"encoding/json"
	"strings"
	"testing"

	"berth/base/fault"
)

// lines breaks a long instruction into lines that the parser takes.
func lines(text, joint string) string {
	var b strings.Builder
	for len(text) > 60_000 {
		b.WriteString(text[:60_000] + joint)
		text = text[60_000:]
	}
	return b.String() + text
}

func TestHostileDockerfiles(t *testing.T) {
	const many = 200_000
	nested := strings.Repeat("${A:-", many) + strings.Repeat("}", many)
	chained := "FROM x\n" + strings.Repeat("ONBUILD ", 2000) + "RUN a\n"
	for name, file := range map[string]string{
		"variables":                    "FROM x\nENV A=" + lines(nested, "\\\n"),
		"variables in a here-document": "FROM x\nCOPY <<EOF /\n" + lines(nested, "\n") + "\nEOF\n",
		"with comments between":        "FROM x\nENV A=" + lines(nested, "\\\n# }}}\n\n"),
		"the other escape":             "# escape=`\nFROM x\nENV A=" + lines(nested, "`\n"),
		"long":                         "FROM x\nRUN " + lines(strings.Repeat("x", maxLine+1), "\\\n"),
		"long, with blanks":            "FROM x\nRUN " + lines(strings.Repeat("x", maxLine+1), "\\ \t\r\n"),
		"instructions":                 "FROM x\nRUN b" + strings.Repeat("\n\trun\ta", maxSteps),
		"no instructions":              strings.Repeat("\nx", maxSteps+1),
		"instructions after documents": "FROM x\nRUN <<A cat <<-B\n" + strings.Repeat("RUN a\n", 20_000) + "A\nx\n\tB\n" + strings.Repeat("RUN a\n", maxSteps),
		"joined by another escape":     "FROM x\n" + strings.Repeat(strings.Repeat("A`\n", 100)+"A\n", maxSteps/100+1),
		"joined in a document":         "FROM x\nRUN <<EOF\n" + strings.Repeat("A\\\n", 20_000) + "EOF\n" + strings.Repeat("RUN a\n", maxSteps),
		"no documents":                 "FROM x\nENV A=<<EOF\n" + strings.Repeat("RUN a\n", maxSteps) + "EOF\n",
		"documents of another escape":  "# syntax=a\n# escape=`\nFROM x\nRUN a \\\nRUN <<EOF\nEOF\n" + strings.Repeat("RUN a\n", maxSteps),
		"a document that goes on":      "FROM x\nRUN a \\\nRUN <<\\\nEOF\nEOF\n" + strings.Repeat("RUN a\n", maxSteps),
		"triggers":                     chained,
		"triggers, broken":             strings.ReplaceAll(chained, "ONBUILD ", "onbu\\\n# c\nild "),
		"triggers, at the end":         strings.TrimSpace(strings.Repeat("ONBUILD ", 2000)),
	} {
		if err := CheckDockerfile([]byte(file)); !fault.Is(err, fault.Invalid) || len(err.Error()) > 200 {
			t.Errorf("%s: %v", name, err)
		}
		config, err := json.Marshal(map[string]any{"config": map[string]any{"OnBuild": strings.SplitAfter(file, "\nRUN ")}})
		if err != nil {
			t.Fatal(err)
		}
		if err := checkImage(config); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s, of an image: %v", name, err)
		}
	}
	for name, file := range map[string]string{
		"empty":     "",
		"plain":     "FROM x\nONBUILD RUN a\nONBUILD COPY . /\nRUN a \\\n  # why\n\n  && b ${A:-${B:-c}}\n",
		"many":      "FROM x\n" + strings.Repeat("RUN echo ${A} \\\n && b\n", 5000),
		"words":     "FROM x\nRUN <<EOF\n" + strings.Repeat("run a\nCOPY b\n", 200_000) + "EOF\nONBUILD copy <<-'A' b \\\n# c\n\n  <<\"B\" /\n" + strings.Repeat("\tADD x\n", 20_000) + "\t\tA\n" + strings.Repeat("FROM y\n", 20_000) + "B\nRUN c\n",
		"escapes":   "#escape=`\nFROM x\nRUN `\n <<EOF sh\n" + strings.Repeat("ENV a `\n", 20_000) + "EOF\nRUN c\n",
		"documents": "FROM x\nCOPY <<EOF /a\n" + strings.Repeat("{\"a\": \"b\"}\n", 90_000) + "EOF\nCOPY <<EOF /b\n" + strings.Repeat("x\n", 1<<20) + "EOF\n",
	} {
		if err := CheckDockerfile([]byte(file)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := checkImage([]byte(`{"config":{"OnBuild":["RUN a","COPY . /"]}}`)); err != nil {
		t.Error(err)
	}
}

// A long list of patterns is no Dockerfile of too many instructions, unless it is read as one.
func TestIgnoreFilesAreNoDockerfiles(t *testing.T) {
	patterns := []byte(strings.Repeat("node_modules\n", maxSteps+1))
	for _, c := range []struct {
		dockerfile, read string
		refused          bool
	}{
		{"", ".dockerignore", false}, {"", "Dockerfile.dockerignore", false}, {"a/Dockerfile", "a/Dockerfile.dockerignore", false},
		{"", "Dockerfile", true}, {"x", "x", true}, {".dockerignore", ".dockerignore", true}, {"./a/x.dockerignore", "a/x.dockerignore", true},
	} {
		call := &Call{Frontend: dockerfileName, Options: map[string]string{}}
		if c.dockerfile != "" {
			call.Options["filename"] = c.dockerfile
		}
		if err := call.reads(c.read, patterns); (err != nil) != c.refused || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s, where %q is the Dockerfile: %v", c.read, c.dockerfile, err)
		}
	}
}
