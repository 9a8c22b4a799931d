package expand

import (
	"fmt"
	"strings"
)

// holds decides a condition:
//
//	either    = both { ("||" | "OR") both }
//	both      = one { ("&&" | "AND") one }
//	one       = ("!" | "NOT") one | "(" either ")" | "DEFINED" NAME | word [ ("==" | "!=") word ]
//
// A word alone holds unless it is empty, 0, false, no or off. Both sides of && and || are always looked at, so that a mistake shows whatever the values.
func (s *scope) holds(text string) (bool, error) {
	tokens, err := tokenize(text)
	if err != nil {
		return false, err
	}
	p := &condition{scope: s, tokens: tokens}
	yes, err := p.either(0)
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("%q is not understood here; a condition is a word, or WORD == WORD, with !, &&, || and parentheses", p.tokens[0])
	}
	return yes, err
}

// tokenize splits a condition at spaces, operators and parentheses outside of quotes and braces.
func tokenize(text string) ([]string, error) {
	var tokens []string
	start := -1
	end := func(i int) {
		if start >= 0 {
			tokens = append(tokens, text[start:i])
			start = -1
		}
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == ' ' || c == '\t':
			end(i)
		case c == '(' || c == ')':
			end(i)
			tokens = append(tokens, string(c))
		case strings.HasPrefix(text[i:], "==") || strings.HasPrefix(text[i:], "!=") || strings.HasPrefix(text[i:], "&&") || strings.HasPrefix(text[i:], "||"):
			end(i)
			tokens = append(tokens, text[i:i+2])
			i++
		case c == '!' && start < 0:
			tokens = append(tokens, "!")
		default:
			if start < 0 {
				start = i
			}
			skip, err := quoted(text[i:])
			if err != nil {
				return nil, err
			}
			i += skip
		}
	}
	end(len(text))
	return tokens, nil
}

// quoted says how many bytes after the first belong to it: to the end of a quote or brace, one after a backslash, else none.
func quoted(text string) (int, error) {
	var closing string
	switch {
	case text[0] == '\\':
		return min(1, len(text)-1), nil
	case text[0] == '"', text[0] == '\'':
		closing = text[:1]
	case strings.HasPrefix(text, "${"):
		closing = "}"
	default:
		return 0, nil
	}
	n := strings.Index(text[1:], closing)
	if n < 0 {
		return 0, fmt.Errorf("%s is not closed", text)
	}
	return n + 1, nil
}

type condition struct {
	scope  *scope
	tokens []string
}

// next takes the first token when it is one of words, which are compared without case.
func (p *condition) next(words ...string) bool {
	if len(p.tokens) == 0 {
		return false
	}
	for _, w := range words {
		if strings.EqualFold(p.tokens[0], w) {
			p.tokens = p.tokens[1:]
			return true
		}
	}
	return false
}

func (p *condition) either(depth int) (bool, error) {
	yes, err := p.both(depth)
	for err == nil && p.next("||", "OR") {
		var more bool
		more, err = p.both(depth)
		yes = yes || more
	}
	return yes, err
}

func (p *condition) both(depth int) (bool, error) {
	yes, err := p.one(depth)
	for err == nil && p.next("&&", "AND") {
		var more bool
		more, err = p.one(depth)
		yes = yes && more
	}
	return yes, err
}

func (p *condition) one(depth int) (bool, error) {
	switch {
	case depth > maxNest:
		return false, fmt.Errorf("the condition nests more than %d deep", maxNest)
	case p.next("!", "NOT"):
		yes, err := p.one(depth + 1)
		return !yes, err
	case p.next("("):
		yes, err := p.either(depth + 1)
		if err == nil && !p.next(")") {
			err = fmt.Errorf("a parenthesis is not closed")
		}
		return yes, err
	case len(p.tokens) > 1 && isName(p.tokens[1]) && p.next("DEFINED"):
		name := p.tokens[0]
		p.tokens = p.tokens[1:]
		if why := p.scope.visible()[name].unknown; why != "" {
			return false, fmt.Errorf("%s", why)
		}
		_, set := p.scope.Get(name)
		return set, nil
	}
	left, err := p.word()
	if err != nil {
		return false, err
	}
	switch {
	case p.next("=="):
		right, err := p.word()
		return left == right, err
	case p.next("!="):
		right, err := p.word()
		return left != right, err
	}
	switch strings.ToLower(left) {
	case "", "0", "false", "no", "off":
		return false, nil
	}
	return true, nil
}

func (p *condition) word() (string, error) {
	if len(p.tokens) == 0 {
		return "", fmt.Errorf("the condition ends too early")
	}
	t := p.tokens[0]
	switch t {
	case "==", "!=", "&&", "||", ")", "(":
		return "", fmt.Errorf("a word is missing before %q", t)
	}
	p.tokens = p.tokens[1:]
	return p.scope.word(t)
}
