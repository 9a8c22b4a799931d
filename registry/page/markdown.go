package page

import (
	"bytes"
	"crypto/sha256"
	"html/template"
	"net/url"
	"strings"
	"sync"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/renderer"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// rendered remembers descriptions as they are shown: what is meant to be slow (thousands of nested quotes) is so once.
type rendered struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]template.HTML
}

// maxRendered is how many are remembered, each of some 100 kB at most.
const maxRendered = 256

func (c *rendered) markdown(source string) template.HTML {
	key := sha256.Sum256([]byte(source))
	c.mu.Lock()
	out, ok := c.all[key]
	c.mu.Unlock()
	if ok {
		return out
	}
	out = markdown(source)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) >= maxRendered || c.all == nil {
		c.all = map[[sha256.Size]byte]template.HTML{}
	}
	c.all[key] = out
	return out
}

// markdown renders a long description. Raw HTML is left out (goldmark's renderer does so unless it is told to be unsafe); an image
// becomes a link, since the page fetches nothing from elsewhere; a link to anything but http, https and mailto becomes its text.
// Headings begin one level lower: the page has its own first one.
func markdown(source string) template.HTML {
	md := goldmark.New(
		goldmark.WithExtensions(extension.NewTable(extension.WithTableCellAlignMethod(extension.TableCellAlignAttribute)), extension.Strikethrough, extension.Linkify, extension.TaskList),
		goldmark.WithParserOptions(parser.WithASTTransformers(util.Prioritized(tame{}, 1000))),
		goldmark.WithRendererOptions(renderer.WithNodeRenderers(util.Prioritized(links{}, 1))),
	)
	var b bytes.Buffer
	if err := md.Convert([]byte(source), &b); err != nil {
		return template.HTML("<pre>" + template.HTMLEscapeString(source) + "</pre>")
	}
	return template.HTML(b.String())
}

// tame changes the tree before it is rendered.
type tame struct{}

// Transform turns images into links and makes headings smaller.
func (tame) Transform(doc *ast.Document, _ text.Reader, _ parser.Context) {
	var images []*ast.Image
	ast.Walk(doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // it only fails when we do
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Image:
			images = append(images, n)
		case *ast.Heading:
			n.Level = min(n.Level+1, 6)
		}
		return ast.WalkContinue, nil
	})
	for _, image := range images {
		link := ast.NewLink()
		if !insideLink(image) { // a badge is in a link already: its words stay
			link.Destination, link.Title = image.Destination, image.Title
		}
		for c := image.FirstChild(); c != nil; c = image.FirstChild() {
			link.AppendChild(link, c)
		}
		if link.FirstChild() == nil {
			link.AppendChild(link, ast.NewString([]byte("image")))
		}
		image.Parent().ReplaceChild(image.Parent(), image, link)
	}
}

// insideLink reports whether a node is part of a link.
func insideLink(n ast.Node) bool {
	for p := n.Parent(); p != nil; p = p.Parent() {
		if p.Kind() == ast.KindLink {
			return true
		}
	}
	return false
}

// links renders links, and nothing else.
type links struct{}

// RegisterFuncs is of renderer.NodeRenderer.
func (links) RegisterFuncs(r renderer.NodeRendererFuncRegisterer) {
	r.Register(ast.KindLink, func(w util.BufWriter, _ []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
		anchor(w, string(n.(*ast.Link).Destination), entering)
		return ast.WalkContinue, nil
	})
	r.Register(ast.KindAutoLink, func(w util.BufWriter, source []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		a := n.(*ast.AutoLink)
		to := string(a.URL(source))
		if a.AutoLinkType == ast.AutoLinkEmail && !strings.HasPrefix(to, "mailto:") {
			to = "mailto:" + to
		}
		anchor(w, to, true)
		w.Write(util.EscapeHTML(a.Label(source)))
		anchor(w, to, false)
		return ast.WalkContinue, nil
	})
}

// anchor begins or ends a link; to something that is not to be linked it writes nothing.
func anchor(w util.BufWriter, to string, begin bool) {
	escaped := util.URLEscape([]byte(to), true)
	switch {
	case !linkable(to), !linkable(string(escaped)):
	case begin:
		w.WriteString(`<a rel="nofollow noopener noreferrer ugc" href="`)
		w.Write(util.EscapeHTML(escaped))
		w.WriteString(`">`)
	default:
		w.WriteString("</a>")
	}
}

// linkable reports whether a stranger's link leads where links may lead.
func linkable(to string) bool {
	u, err := url.Parse(to)
	if err != nil || strings.ContainsFunc(to, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return false
	}
	switch strings.ToLower(u.Scheme) {
	case "http", "https":
		return u.Host != ""
	case "mailto":
		return true
	}
	return false
}
