// Package table prints rows for people: columns aligned by spaces, the last one cut to what a terminal has room for.
//
// It owns no words and no colours, and never asks how wide the terminal is: its callers do.
package table

import (
	"fmt"
	"io"
	"strings"
)

// Print aligns columns and cuts the last one so that a line fits into width columns; 0: nothing is cut. Where there is no room for
// a useful part of it, it stands on a line of its own.
func Print(out io.Writer, rows [][]string, width int) {
	last := len(rows[0]) - 1
	wide := make([]int, last)
	for _, r := range rows {
		for i := range wide {
			wide[i] = max(wide[i], len([]rune(r[i])))
		}
	}
	room := width
	for _, w := range wide {
		room -= w + 2
	}
	for n, r := range rows {
		var b strings.Builder
		for i, w := range wide {
			b.WriteString(r[i] + strings.Repeat(" ", w-len([]rune(r[i]))+2))
		}
		text := []rune(r[last])
		switch {
		case width == 0 || room >= len(text):
			b.WriteString(string(text))
		case room >= 16:
			b.WriteString(string(text[:room-1]) + "…")
		case n == 0: // no column for it
		default:
			text = text[:min(len(text), max(width-4, 1))]
			fmt.Fprintln(out, strings.TrimRight(b.String(), " "))
			b.Reset()
			b.WriteString("    " + string(text))
		}
		fmt.Fprintln(out, strings.TrimRight(b.String(), " "))
	}
}
