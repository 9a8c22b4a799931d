package conform

import (
	"net/url"
	"regexp"
	"strings"

	"berth/test/conform/swagger"
)

// nothing is a name that nothing has.
const nothing = "no-such-thing"

// untried are parameters whose switch means another request altogether, with the reason.
var untried = map[string]string{
	"POST /containers/{id}/attach stream":   "waits for a start of the container",
	"GET /containers/{id}/attach/ws stream": "waits for a start of the container",
	"DELETE /containers/{id} link":          "removes a link, which has a name of its own",
	"GET /images/json manifests":            "is an answer of its own, asked in the table",
	"GET /images/json identity":             "needs manifests",
	"GET /images/{name}/json manifests":     "is an answer of its own, asked in the table",
}

// present are operations whose answer for a thing that is not there is no 404, with the reason.
var present = map[string]string{
	"POST /images/{name}/push": "says so in the stream, as Docker does",
	"PUT /volumes/{name}":      "503 comes first: there is no swarm",
}

// requests gives those of the table for an operation, and what follows from the first of them and the operation's parameters.
func requests(op *swagger.Operation, minor int) []ask {
	if cluster[op.Tag] || strings.HasPrefix(op.Path, "/tasks/") { // a few of those have no tag
		return []ask{outside(op)}
	}
	var out []ask
	for _, a := range asks {
		if a.op == op.Key() && minor >= a.from && (a.to == 0 || minor <= a.to) {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return nil
	}
	good := out[0]
	if strings.Contains(op.Path, "{") && present[op.Key()] == "" {
		out = append(out, missing(op, good))
	}
	if good.noAuto || good.from > swagger.Oldest {
		return out
	}
	for _, p := range op.Parameters {
		if untried[op.Key()+" "+p.Name] != "" {
			continue
		}
		switch {
		case p.In == "body":
			out = append(out, badBodies(good)...)
		case p.In != "query":
		case p.Name == "filters":
			out = append(out, bad(good, p.Name, `{"no-such-filter":["x"]}`), bad(good, p.Name, "{"))
		case p.Type == "integer":
			out = append(out, bad(good, p.Name, "twelve"))
		case p.Type == "boolean" && !query(good.url).Has(p.Name):
			out = append(out, set(good, p.Name, "1"), set(good, p.Name, "false"))
		}
	}
	return out
}

// outside asks an engine that is in no swarm about one.
func outside(op *swagger.Operation) ask {
	a := ask{op: op.Key(), url: pathWord.ReplaceAllLiteralString(op.Path, nothing), want: 503, note: "in no swarm"}
	if op.Method == "POST" {
		a.body = "{}"
	}
	if op.Path == "/swarm/init" || op.Path == "/swarm/join" {
		a.want, a.note = 501, "there is no cluster mode yet"
	}
	return a
}

var pathWord = regexp.MustCompile(`\{[^}]*\}`)

func missing(op *swagger.Operation, good ask) ask {
	_, after, has := strings.Cut(good.url, "?")
	name := nothing
	if op.Tag == "Distribution" {
		name = "$registry/" + nothing + ":one" // a bare name is looked for far away
	}
	good.url = pathWord.ReplaceAllLiteralString(op.Path, name)
	if has {
		good.url += "?" + after
	}
	good.want, good.note, good.stream = 404, "there is none", false
	return good
}

func set(good ask, name, value string) ask {
	path, _, _ := strings.Cut(good.url, "?")
	values := query(good.url)
	values.Set(name, value)
	text, _ := url.QueryUnescape(values.Encode()) // words are to be found in it, and are escaped when it is sent
	good.url = path + "?" + text
	return good
}

func bad(good ask, name, value string) ask {
	good = set(good, name, value)
	good.want = 400
	return good
}

// badBodies are wrong where a right one is JSON.
func badBodies(good ask) []ask {
	if !strings.HasPrefix(good.body, "{") && !strings.HasPrefix(good.body, "[") {
		return nil
	}
	cut, kind, list := good, good, good
	cut.body, cut.want, cut.note = `{"a":`, 400, "a body that is cut off"
	kind.head, kind.want, kind.note = strings.TrimSpace(good.head+"\nContent-Type: text/plain"), 400, "a body that says it is text"
	list.body, list.want, list.note = `"text"`, 400, "a text as body"
	return []ask{cut, kind, list}
}

func query(target string) url.Values {
	_, text, _ := strings.Cut(target, "?")
	values, _ := url.ParseQuery(escaped(text)) // ours
	return values
}
