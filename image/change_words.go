package image

import (
	"strings"

	"berth/base/fault"
)

// splitWords cuts a line at blanks that are neither quoted nor escaped. Quotes stay: expand takes them away. There is at
// least one word.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote byte
	inWord := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			word.WriteByte(c)
			i++
			word.WriteByte(s[i])
			inWord = true
			continue
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
			continue
		}
		word.WriteByte(c)
		inWord = true
	}
	if quote != 0 {
		return nil, fault.New(fault.Invalid, "unexpected end of statement while looking for matching %s-quote", map[byte]string{'"': "double", '\'': "single"}[quote])
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, fault.New(fault.Invalid, "nothing there")
	}
	return words, nil
}

// expand takes quotes and escapes away and puts the environment's values in: $NAME, ${NAME}, ${NAME:-otherwise},
// ${NAME:+instead}, ${NAME:?message}. Single quotes and escapes keep a dollar sign.
func (e *editor) expand(s string) (string, error) {
	x := &expansion{s: s, lookup: e.lookup}
	return x.text(0)
}

func (e *editor) lookup(name string) (string, bool) {
	for _, v := range e.c.Env {
		if k, value, _ := strings.Cut(v, "="); k == name {
			return value, true
		}
	}
	return "", false
}

type expansion struct {
	s      string
	at     int
	depth  int
	lookup func(string) (string, bool)
}

// text expands up to the byte stop, which is consumed, or to the end when stop is 0.
func (x *expansion) text(stop byte) (string, error) {
	if x.depth++; x.depth > 32 {
		return "", fault.New(fault.Invalid, "%q nests too deep", x.s)
	}
	defer func() { x.depth-- }()
	var out strings.Builder
	for x.at < len(x.s) {
		c := x.s[x.at]
		x.at++
		switch {
		case c == stop && stop != 0:
			return out.String(), nil
		case c == '\'':
			end := strings.IndexByte(x.s[x.at:], '\'')
			if end < 0 {
				return "", x.unfinished("single-quote")
			}
			out.WriteString(x.s[x.at : x.at+end])
			x.at += end + 1
		case c == '"':
			if err := x.quoted(&out); err != nil {
				return "", err
			}
		case c == '\\' && x.at < len(x.s):
			out.WriteByte(x.s[x.at])
			x.at++
		case c == '$':
			v, err := x.variable()
			if err != nil {
				return "", err
			}
			out.WriteString(v)
		default:
			out.WriteByte(c)
		}
	}
	if stop != 0 {
		return "", x.unfinished(string(stop))
	}
	return out.String(), nil
}

// quoted expands what stands in double quotes: only \", \$ and \\ are escapes there.
func (x *expansion) quoted(out *strings.Builder) error {
	for x.at < len(x.s) {
		c := x.s[x.at]
		x.at++
		switch {
		case c == '"':
			return nil
		case c == '\\' && x.at < len(x.s) && strings.IndexByte(`"$\`, x.s[x.at]) >= 0:
			out.WriteByte(x.s[x.at])
			x.at++
		case c == '$':
			v, err := x.variable()
			if err != nil {
				return err
			}
			out.WriteString(v)
		default:
			out.WriteByte(c)
		}
	}
	return x.unfinished("double-quote")
}

// variable expands what follows a dollar sign.
func (x *expansion) variable() (string, error) {
	if x.at < len(x.s) && x.s[x.at] == '{' {
		x.at++
		return x.braced()
	}
	name := x.name()
	if name == "" {
		return "$", nil
	}
	v, _ := x.lookup(name)
	return v, nil
}

func (x *expansion) name() string {
	start := x.at
	for x.at < len(x.s) {
		c := x.s[x.at]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9' || x.at == start) {
			break
		}
		x.at++
	}
	return x.s[start:x.at]
}

func (x *expansion) braced() (string, error) {
	name := x.name()
	if name == "" || x.at >= len(x.s) {
		return "", fault.New(fault.Invalid, "bad substitution in %q", x.s)
	}
	value, set := x.lookup(name)
	c := x.s[x.at]
	x.at++
	if c == '}' {
		return value, nil
	}
	if c == ':' && x.at < len(x.s) {
		set = value != ""
		c = x.s[x.at]
		x.at++
	}
	if strings.IndexByte("-+?", c) < 0 {
		return "", fault.New(fault.Invalid, "unsupported modifier (%c) in substitution", c)
	}
	word, err := x.text('}')
	if err != nil {
		return "", err
	}
	switch {
	case c == '+' && set:
		return word, nil
	case c == '+':
		return "", nil
	case set:
		return value, nil
	case c == '?':
		return "", fault.New(fault.Invalid, "%s: %s", name, word)
	}
	return word, nil
}

func (x *expansion) unfinished(what string) error {
	return fault.New(fault.Invalid, "unexpected end of %q while looking for matching %s", x.s, what)
}
