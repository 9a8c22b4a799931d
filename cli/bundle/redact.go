package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// gone stands where a secret was.
const gone = "[redacted]"

var (
	// secretName matches names of things that are nobody else's.
	secretName = regexp.MustCompile(`(?i)(` + secretWords + `|private|^auth$|x-registry-auth|basicauth|digestauth|signing[-_]?key)`)
	// userinfo is the part of a URL that may hold a password, which may hold an "@".
	userinfo = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s"']+@`)
	// privateKey is a PEM block that must not leave the machine, also one that was cut off.
	privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`)
	// bearer is a credential in a header.
	bearer = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`)
	// assigned is NAME=VALUE or NAME: VALUE, quoted or not.
	assigned = regexp.MustCompile(`(?i)(["']?[\w.-]*(?:` + secretWords + `)[\w.-]*["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,;}]+)`)
	// given is --NAME VALUE in a command line of one string.
	given = regexp.MustCompile(`(?i)(\s--?[\w-]*(?:` + secretWords + `)[\w-]*\s+)("[^"]*"|'[^']*'|[^\s,;}-][^\s,;}]*)`)
)

// secretWords are parts of names, also where these stand in a text.
const secretWords = `passw|passphrase|pgpass|_pwd|secret|token|credential|api[-_]?key|access[-_]?key|authorization`

// Redact gives a JSON text without secrets, indented. A text that is no JSON is treated by RedactText.
func Redact(text []byte) []byte {
	var v any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // sizes in bytes are longer than a float64's digits
	if d.Decode(&v) != nil {
		return []byte(RedactText(string(text)))
	}
	out, err := json.MarshalIndent(redacted("", v), "", "  ")
	if err != nil {
		return []byte(RedactText(string(text)))
	}
	return append(out, '\n')
}

// redacted walks a decoded JSON value. name is the key under which it stands.
func redacted(name string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			v[k] = redacted(k, inner)
		}
		return v
	case []any:
		return redactedList(name, v)
	case string:
		if v != "" && secretName.MatchString(name) {
			return gone
		}
		return RedactText(v)
	}
	return v
}

func redactedList(name string, list []any) []any {
	hideNext := false
	for i, inner := range list {
		word, isWord := inner.(string)
		switch {
		case !isWord:
			list[i] = redacted(name, inner)
		case strings.EqualFold(name, "env"):
			list[i] = redactedVariable(word)
		case hideNext:
			list[i] = gone
		default:
			list[i] = redacted(name, word)
		}
		// `--password VALUE` in a command line
		hideNext = isWord && strings.HasPrefix(word, "-") && !strings.Contains(word, "=") && secretName.MatchString(word)
	}
	return list
}

// redactedVariable keeps the name of an environment variable, and says how long its value was: empty values explain much.
func redactedVariable(kv string) string {
	name, value, ok := strings.Cut(kv, "=")
	if !ok || value == "" {
		return kv
	}
	return fmt.Sprintf("%s=%s %d bytes", name, gone, len(value))
}

// RedactText gives a text without what looks like a secret: passwords in URLs, private keys, credentials of headers, and values that are
// assigned to a name like "password".
func RedactText(s string) string {
	s = privateKey.ReplaceAllString(s, gone)
	s = userinfo.ReplaceAllString(s, "${1}"+gone+"@")
	s = bearer.ReplaceAllString(s, "${1} "+gone)
	s = given.ReplaceAllString(s, "${1}"+gone)
	return assigned.ReplaceAllString(s, "${1}"+gone)
}
