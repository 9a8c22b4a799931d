package retention

import (
	"fmt"
	"io"
	"strings"
)

// Write prints the plan for people: what goes, and with all also which tags stay, and why.
func (p Plan) Write(w io.Writer, all bool) error {
	var b strings.Builder
	tags, manifests, repos, frees := 0, 0, 0, int64(0)
	for _, r := range p.Repositories {
		if len(r.Untag)+len(r.Delete) > 0 {
			repos++
		}
		tags += len(r.Untag)
		manifests += len(r.Delete)
		frees += r.Frees
	}
	if p.Empty() {
		fmt.Fprintf(&b, "plan %s: nothing goes\n", p.ID)
	} else {
		fmt.Fprintf(&b, "plan %s: %s and %s of %s go; the next collection can free up to %s\n",
			p.ID, count(tags, "tag"), count(manifests, "manifest"), count(repos, "repository"), bytesText(frees))
	}
	for _, r := range p.Repositories {
		if len(r.Untag)+len(r.Delete) == 0 && !all {
			continue
		}
		fmt.Fprintf(&b, "%s\n", r.Name)
		steps := func(mark, what string, list []Step) {
			for _, s := range list {
				fmt.Fprintf(&b, "  %s %s %s  pushed %s: %s\n", mark, what, strings.TrimSpace(s.Tag+" "+string(s.Digest)), s.At.UTC().Format("2006-01-02 15:04"), s.Why)
			}
		}
		steps("-", "tag", r.Untag)
		steps("-", "manifest", r.Delete)
		if all {
			steps("=", "tag", r.Stays)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "y"):
		return fmt.Sprint(n, " ", strings.TrimSuffix(noun, "y"), "ies")
	}
	return fmt.Sprint(n, " ", noun, "s")
}

// bytesText writes a size in decimal units, as docker does.
func bytesText(n int64) string {
	f, units := float64(n), []string{"B", "kB", "MB", "GB", "TB", "PB"}
	i := 0
	for f >= 1000 && i < len(units)-1 {
		f /= 1000
		i++
	}
	return fmt.Sprintf("%.4g%s", f, units[i])
}
