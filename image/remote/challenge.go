package remote

import "strings"

// challenge is one way in which a server wants to know who asks (RFC 9110, 11.6.1).
type challenge struct {
	scheme string            // lower case: bearer, basic
	params map[string]string // names in lower case
}

const (
	maxChallenge  = 16 << 10 // bytes of WWW-Authenticate that are read
	maxChallenges = 16
)

// parseChallenges reads WWW-Authenticate headers. A header may hold several challenges, and a comma separates both
// challenges and their parameters. What cannot be read is left out.
func parseChallenges(headers []string) []challenge {
	var list []challenge
	for _, h := range headers {
		if len(h) > maxChallenge {
			continue
		}
		p := headerScanner{s: h}
		for len(list) < maxChallenges {
			p.skip(" \t,")
			scheme := p.token()
			if scheme == "" {
				break
			}
			c := challenge{scheme: strings.ToLower(scheme), params: map[string]string{}}
			p.challengeParams(c.params)
			list = append(list, c)
		}
	}
	return list
}

// headerScanner reads the pieces that HTTP headers are made of.
type headerScanner struct {
	s string
	i int
}

func (p *headerScanner) skip(set string) {
	for p.i < len(p.s) && strings.IndexByte(set, p.s[p.i]) >= 0 {
		p.i++
	}
}

// token reads the longest run of token characters; "" when there is none.
func (p *headerScanner) token() string {
	start := p.i
	for p.i < len(p.s) && isTokenByte(p.s[p.i]) {
		p.i++
	}
	return p.s[start:p.i]
}

func isTokenByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~/", c) >= 0
}

// challengeParams reads NAME=VALUE pairs until the next scheme, which is a token without an equals sign behind it.
func (p *headerScanner) challengeParams(into map[string]string) {
	for {
		p.skip(" \t,")
		mark := p.i
		name := p.token()
		p.skip(" \t")
		if name == "" || p.i >= len(p.s) || p.s[p.i] != '=' {
			p.i = mark
			return
		}
		p.i++
		p.skip(" \t")
		value, ok := p.value()
		if !ok {
			p.i = len(p.s)
			return
		}
		if _, twice := into[strings.ToLower(name)]; !twice {
			into[strings.ToLower(name)] = value
		}
	}
}

// value reads a quoted text or what stands there up to the next comma or blank: some servers forget the quotes.
func (p *headerScanner) value() (string, bool) {
	if p.i < len(p.s) && p.s[p.i] == '"' {
		p.i++
		var b strings.Builder
		for p.i < len(p.s) {
			c := p.s[p.i]
			p.i++
			switch {
			case c == '"':
				return b.String(), true
			case c == '\\' && p.i < len(p.s):
				b.WriteByte(p.s[p.i])
				p.i++
			default:
				b.WriteByte(c)
			}
		}
		return "", false
	}
	start := p.i
	for p.i < len(p.s) && strings.IndexByte(", \t\"", p.s[p.i]) < 0 {
		p.i++
	}
	return p.s[start:p.i], true
}

// parseLink finds the address of rel="next" in Link headers (RFC 8288); "" when there is none.
func parseLink(headers []string) string {
	for _, h := range headers {
		if len(h) > maxChallenge {
			continue
		}
		p := headerScanner{s: h}
		for {
			p.skip(" \t,")
			if p.i >= len(p.s) || p.s[p.i] != '<' {
				break
			}
			end := strings.IndexByte(p.s[p.i:], '>')
			if end < 0 {
				break
			}
			target := p.s[p.i+1 : p.i+end]
			p.i += end + 1
			if p.linkRel("next") {
				return target
			}
		}
	}
	return ""
}

// linkRel reads the parameters of one link and reports whether its relation is want.
func (p *headerScanner) linkRel(want string) bool {
	found := false
	for {
		p.skip(" \t")
		if p.i >= len(p.s) || p.s[p.i] != ';' {
			return found
		}
		p.i++
		p.skip(" \t")
		name := p.token()
		p.skip(" \t")
		if p.i >= len(p.s) || p.s[p.i] != '=' {
			continue
		}
		p.i++
		p.skip(" \t")
		start := p.i
		var v string
		if p.i < len(p.s) && p.s[p.i] == '"' {
			var ok bool
			if v, ok = p.value(); !ok {
				p.i = len(p.s)
				return found
			}
		} else {
			for p.i < len(p.s) && strings.IndexByte(",; \t", p.s[p.i]) < 0 {
				p.i++
			}
			v = p.s[start:p.i]
		}
		if strings.EqualFold(name, "rel") {
			for _, w := range strings.Fields(v) {
				found = found || strings.EqualFold(w, want)
			}
		}
	}
}
