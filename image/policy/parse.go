package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// maxFile is the largest file of rules, and of keys, that is read.
const maxFile = 4 << 20

// Load reads a file of rules, and the files of keys and roots that it names, relative to its own directory. Errors are
// Invalid and say the line.
func Load(path string) (*Policy, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "image policy")
	}
	dir := filepath.Dir(path)
	return Parse(filepath.Base(path), text, func(name string) ([]byte, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return readFile(name)
	})
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return text, err
}

// The file as it is written.
type (
	ruleText struct {
		Images  string          `json:"images"`
		Action  Action          `json:"action"`
		Reason  string          `json:"reason"`
		Digest  bool            `json:"digest"`
		Digests []digest.Digest `json:"digests"`
		Signed  []signerText    `json:"signed"`
		Need    *int            `json:"need"`
	}
	signerText struct {
		Key       string        `json:"key"`
		Identity  *identityText `json:"identity"`
		Log       string        `json:"log"`
		Stamps    string        `json:"timestamps"`
		Predicate string        `json:"predicate"`
		Reference bool          `json:"reference"`
	}
	identityText struct {
		Roots   string `json:"roots"`
		Issuer  string `json:"issuer"`
		Subject string `json:"subject"`
		Match   string `json:"match"`
	}
)

// parser reads a file from its beginning to its end, and knows the line that it stands on.
type parser struct {
	file string
	text []byte
	dec  *json.Decoder
	open func(string) ([]byte, error)
	keys map[string]string
	line int // of the value that is being read
}

// Parse reads rules. open reads the files that they name.
func Parse(file string, text []byte, open func(name string) ([]byte, error)) (*Policy, error) {
	p := &parser{file: file, text: text, dec: json.NewDecoder(bytes.NewReader(text)), open: open, keys: map[string]string{}, line: 1}
	p.dec.DisallowUnknownFields()
	policy, err := p.policy()
	if err == nil {
		return policy, nil
	}
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		p.line = p.lineAt(syntax.Offset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		p.line, err = p.lineAt(int64(len(text))), errors.New("the file ends in the middle")
	}
	return nil, fault.New(fault.Invalid, "image policy %s line %d: %v", file, p.line, err)
}

func (p *parser) policy() (*Policy, error) {
	out := &Policy{Name: strings.TrimSuffix(p.file, filepath.Ext(p.file)), file: p.file}
	// Keys are read first, wherever they stand.
	var whole struct {
		Keys map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(p.text, &whole); err == nil && whole.Keys != nil {
		p.keys = whole.Keys
	}
	if err := p.delim('{'); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for p.dec.More() {
		t, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		p.mark()
		key, _ := t.(string)
		if seen[key] {
			return nil, fmt.Errorf("%q stands twice", key)
		}
		seen[key] = true
		if err := p.field(out, key); err != nil {
			return nil, err
		}
	}
	if err := p.delim('}'); err != nil {
		return nil, err
	}
	if p.dec.More() {
		return nil, errors.New("there is more after the end")
	}
	switch {
	case !seen["version"]:
		return nil, errors.New(`"version" is missing`)
	case out.rest == nil:
		return nil, errors.New(`"default" is missing: accept or reject what no rule is for`)
	}
	return out, nil
}

func (p *parser) field(out *Policy, key string) error {
	switch key {
	case "version":
		var n int
		if err := p.dec.Decode(&n); err != nil {
			return err
		}
		if n != 1 {
			return fmt.Errorf("version %d: this program knows version 1", n)
		}
	case "name":
		if err := p.dec.Decode(&out.Name); err != nil {
			return err
		}
		if out.Name == "" {
			return errors.New("the name is empty")
		}
	case "default":
		var a Action
		if err := p.dec.Decode(&a); err != nil {
			return err
		}
		if a != Accept && a != Reject {
			return fmt.Errorf("default %q: accept or reject", a)
		}
		out.rest = &Rule{Line: p.line, Action: a, file: p.file}
	case "keys":
		return p.dec.Decode(&map[string]string{})
	case "rules":
		return p.rules(out)
	default:
		return fmt.Errorf("unknown field %q", key)
	}
	return nil
}

func (p *parser) rules(out *Policy) error {
	if err := p.delim('['); err != nil {
		return err
	}
	for p.dec.More() {
		p.mark()
		var t ruleText
		if err := p.dec.Decode(&t); err != nil {
			return err
		}
		r, err := p.rule(t)
		if err != nil {
			return err
		}
		for _, other := range out.rules {
			if other.Pattern == r.Pattern {
				return fmt.Errorf("the rule of line %d is for %s already", other.Line, r.Pattern)
			}
		}
		out.rules = append(out.rules, r)
	}
	return p.delim(']')
}

func (p *parser) rule(t ruleText) (*Rule, error) {
	if t.Images == "" {
		return nil, errors.New(`the rule has no "images"`)
	}
	r := &Rule{Line: p.line, Pattern: t.Images, Action: t.Action, Reason: t.Reason, Pinned: t.Digest, Digests: t.Digests, file: p.file}
	var problem string
	if r.pattern, problem = parsePattern(t.Images); problem != "" {
		return nil, fmt.Errorf("images %q %s", t.Images, problem)
	}
	conditions := t.Digest || len(t.Digests) > 0 || len(t.Signed) > 0
	switch {
	case r.Action == "" && conditions:
		r.Action = Require
	case r.Action == "":
		return nil, errors.New("the rule says neither what it requires nor accept or reject")
	case r.Action == Require && !conditions:
		return nil, errors.New("the rule requires nothing: digest, digests or signed")
	case r.Action != Require && conditions:
		return nil, fmt.Errorf("the rule says %s and has conditions as well", r.Action)
	case r.Action != Require && r.Action != Accept && r.Action != Reject:
		return nil, fmt.Errorf("action %q: accept, reject or require", r.Action)
	}
	for _, d := range r.Digests {
		if err := d.Validate(); err != nil {
			return nil, fmt.Errorf("digest %q: %v", d, err)
		}
	}
	for _, s := range t.Signed {
		signer, err := p.signer(s)
		if err != nil {
			return nil, err
		}
		r.Signers = append(r.Signers, signer)
	}
	r.Need = 1
	if t.Need != nil {
		r.Need = *t.Need
	}
	if t.Need != nil && (r.Need < 1 || r.Need > len(r.Signers)) {
		return nil, fmt.Errorf("need %d of %d signers", r.Need, len(r.Signers))
	}
	return r, nil
}

func (p *parser) signer(t signerText) (Signer, error) {
	s := Signer{Predicate: t.Predicate, Reference: t.Reference}
	if (t.Key == "") == (t.Identity == nil) {
		return s, errors.New("a signer is a key or an identity")
	}
	if t.Log != "" {
		keys, err := p.publicKeys(t.Log)
		if err != nil {
			return s, fmt.Errorf("log: %v", err)
		}
		s.logs = newLogs(keys)
	}
	if t.Stamps != "" {
		text, err := p.material(t.Stamps)
		if err == nil {
			s.stampers, err = parseStampers(text)
		}
		if err != nil {
			return s, fmt.Errorf("timestamps: %v", err)
		}
	}
	if t.Key != "" {
		keys, err := p.publicKeys(t.Key)
		if err == nil && len(keys) != 1 {
			err = fmt.Errorf("%d keys, one is wanted", len(keys))
		}
		if err != nil {
			return s, fmt.Errorf("key %q: %v", t.Key, err)
		}
		s.Key, s.key = t.Key, keys[0]
		return s, nil
	}
	i := &Identity{Issuer: t.Identity.Issuer, Subject: t.Identity.Subject}
	switch {
	case i.Issuer == "":
		return s, errors.New("an identity without issuer: the subject alone could be vouched for by anybody")
	case (i.Subject == "") == (t.Identity.Match == ""):
		return s, errors.New("an identity has a subject, or a match (a regular expression for the whole subject)")
	case t.Identity.Roots == "":
		return s, errors.New("an identity without roots: the file of the CA's certificates")
	}
	if t.Identity.Match != "" {
		re, err := regexp.Compile(`^(?:` + t.Identity.Match + `)$`)
		if err != nil {
			return s, fmt.Errorf("match: %v", err)
		}
		i.match = re
	}
	text, err := p.material(t.Identity.Roots)
	if err == nil {
		i.roots, i.between, err = parseRoots(text)
	}
	if err != nil {
		return s, fmt.Errorf("roots: %v", err)
	}
	s.Identity = i
	return s, nil
}

func (p *parser) publicKeys(name string) ([]any, error) {
	text, err := p.material(name)
	if err != nil {
		return nil, err
	}
	return parseKeys(text)
}

// material gives PEM: of the file's "keys", as it stands there, or of the file that is named.
func (p *parser) material(name string) ([]byte, error) {
	if v, ok := p.keys[name]; ok {
		name = v
	}
	if strings.HasPrefix(strings.TrimSpace(name), "-----BEGIN ") {
		return []byte(name), nil
	}
	return p.open(name)
}

func (p *parser) delim(want json.Delim) error {
	t, err := p.dec.Token()
	if err != nil {
		return err
	}
	if d, ok := t.(json.Delim); !ok || d != want {
		p.mark()
		return fmt.Errorf("%v where %q belongs", t, want.String())
	}
	return nil
}

// mark notes the line of what comes next, after a comma and spaces.
func (p *parser) mark() {
	at := p.dec.InputOffset()
	for at < int64(len(p.text)) && strings.IndexByte(" \t\r\n,:", p.text[at]) >= 0 {
		at++
	}
	p.line = p.lineAt(at)
}

func (p *parser) lineAt(offset int64) int {
	return 1 + bytes.Count(p.text[:min(max(offset, 0), int64(len(p.text)))], []byte("\n"))
}
