// Package progress says on a terminal what is being waited for and for how long, when that is more than a second.
//
// The life of a Line: Start → shown after a second, with the time that has passed → Say changes its text → Stop takes it away. Where the
// output is no terminal nothing is printed. It never says how much is left: whoever knows that prints a bar.
package progress

import (
	"fmt"
	"io"
	"time"
)

// Output is where a line is shown.
type Output interface {
	io.Writer
	IsTerminal() bool
}

// Line is what is being waited for.
type Line struct {
	quit, done chan struct{}
	text       chan string
}

// Start begins to wait.
func Start(out Output, text string) *Line { return start(out, text, time.Second) }

func start(out Output, text string, every time.Duration) *Line {
	l := &Line{quit: make(chan struct{}), done: make(chan struct{}), text: make(chan string)}
	go l.run(out, text, every)
	return l
}

func (l *Line) run(out Output, text string, every time.Duration) {
	defer close(l.done)
	began, shown := time.Now(), false
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case text = <-l.text:
		case <-tick.C:
			if out.IsTerminal() {
				fmt.Fprintf(out, "\r\x1b[K%s … %s", text, time.Since(began).Round(time.Second))
				shown = true
			}
		case <-l.quit:
			if shown {
				fmt.Fprint(out, "\r\x1b[K")
			}
			return
		}
	}
}

// Say changes the text. It is for the goroutine that stops the line.
func (l *Line) Say(text string) {
	select {
	case l.text <- text:
	case <-l.done:
	}
}

// Stop takes the line away. It may be called again, by the same goroutine.
func (l *Line) Stop() {
	select {
	case <-l.done:
	default:
		close(l.quit)
		<-l.done
	}
}
