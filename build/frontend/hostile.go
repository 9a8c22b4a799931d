package frontend

import (
	"bytes"
	"encoding/json"
	"strings"

	"berth/base/fault"
)

// Bounds on a Dockerfile. The library's parser calls itself for each variable in a variable's default, and copies the rest of the line for
// each ONBUILD: a few megabytes of either would use up the stack, which nobody survives, or keep a processor busy for hours. Linux takes no
// argument of more than 128 KiB, so no instruction that could run is longer.
const (
	maxBraces   = 100_000   // opening ones
	maxLine     = 256 << 10 // bytes of an instruction, its lines joined; here-documents are none of it
	maxTriggers = 100       // ONBUILD before ONBUILD, which is an error anyway
	maxSteps    = 10_000    // instructions; each takes the library longer than the one before
)

// CheckDockerfile refuses a Dockerfile that the library's parser must not see: Invalid.
func CheckDockerfile(data []byte) error {
	if n := bytes.Count(data, []byte("{")); n > maxBraces {
		return fault.New(fault.Invalid, "the Dockerfile has %d opening braces: more than %d", n, maxBraces)
	}
	size, begin := 0, []byte(nil) // of the instruction that is joined, and its text
	lines := 0                    // that are neither empty nor comments
	for line := range bytes.Lines(data) {
		text := bytes.TrimRight(line, " \t\r\n")
		trimmed := bytes.TrimLeft(text, " \t")
		if len(trimmed) == 0 || trimmed[0] == '#' {
			continue // comments and empty lines do not end an instruction that goes on, nor are they any
		}
		lines++
		// Whichever of the two joins lines here: to join too many does no harm.
		joined := bytes.HasSuffix(text, []byte(`\`)) || bytes.HasSuffix(text, []byte("`"))
		if joined {
			text = text[:len(text)-1]
		}
		if size += len(text); size > maxLine {
			return fault.New(fault.Invalid, "an instruction of the Dockerfile has more than %d bytes", maxLine)
		}
		begin = append(begin, text...)
		if joined {
			size = max(size, 1)
			continue
		}
		if err := checkTriggers(begin); err != nil {
			return err
		}
		size, begin = 0, begin[:0]
	}
	if err := checkTriggers(begin); err != nil {
		return err
	}
	if lines > maxSteps && instructionsOf(data) > maxSteps {
		return fault.New(fault.Invalid, "the Dockerfile has more than %d instructions", maxSteps)
	}
	return nil
}

// checkTriggers refuses an instruction of ONBUILD after ONBUILD.
func checkTriggers(line []byte) error {
	n := 0
	for word := range bytes.FieldsSeq(line) {
		if !bytes.EqualFold(word, []byte("ONBUILD")) {
			return nil
		}
		if n++; n > maxTriggers {
			return fault.New(fault.Invalid, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
		}
	}
	return nil
}

// checkImage refuses an image whose triggers, which are parsed like a Dockerfile, the library must not see.
func checkImage(config []byte) error {
	var img struct {
		Config struct{ OnBuild []string }
	}
	if json.Unmarshal(config, &img) != nil {
		return nil // told by whoever needs it
	}
	return fault.In(CheckDockerfile([]byte(strings.Join(img.Config.OnBuild, "\n"))), "triggers of the image")
}
