package foreign

import (
	"bytes"
	"strings"
	"time"

	"berth/base/fault"
	"berth/runtime/keeper/wire"
)

// magic begins an encoded Program. No launch program begins so: theirs is shorter than these bytes, or has a version there.
var magic = []byte("berth foreign runtime\x00\x01")

// Is tells whether an encoded program is one of this package.
func Is(program []byte) bool { return bytes.HasPrefix(program, magic) }

// Program is how to make one process with a runtime's commands.
type Program struct {
	Name     string        // of the runtime, for errors
	Dir      string        // working directory of the commands, absolute
	Env      []string      // their environment
	Steps    []Command     // run in this order; the first makes the process and gets its standard streams
	Undo     []Command     // run when a step has failed, each whether the one before succeeded or not
	PidFile  string        // where the first step writes the id of the process
	Console  string        // socket on which the first step sends the terminal's master; "": there is no terminal
	Log      string        // where the runtime writes why it failed: lines of JSON with "msg", as runc's --log-format=json
	Patience time.Duration // until all steps are done
	Remove   []string      // files that are not needed any more when it is over, well or not
}

// String prints the commands, one a line, in the order in which they are run.
func (p *Program) String() string {
	var b strings.Builder
	for _, c := range p.Steps {
		b.WriteString(strings.Join(c, " ") + "\n")
	}
	return b.String()
}

// Command is one command line. Its first word is a path.
type Command []string

// Encode gives the program as bytes.
func (p *Program) Encode() []byte {
	e := wire.Enc{B: append([]byte(nil), magic...)}
	e.Str(1, p.Name)
	e.Str(2, p.Dir)
	for _, kv := range p.Env {
		e.Str(3, kv)
	}
	for _, c := range p.Steps {
		e.Msg(4, c)
	}
	for _, c := range p.Undo {
		e.Msg(5, c)
	}
	e.Str(6, p.PidFile)
	e.Str(7, p.Console)
	e.Str(8, p.Log)
	e.Int(9, int64(p.Patience))
	for _, f := range p.Remove {
		e.Str(10, f)
	}
	return e.B
}

// Encode appends the words. Empty words count.
func (c Command) Encode(e *wire.Enc) {
	for _, w := range c {
		e.Msg(1, word(w))
	}
}

type word string

// Encode appends the word.
func (w word) Encode(e *wire.Enc) { e.Str(1, string(w)) }

// Decode reads a program. It refuses what could not be run.
func Decode(program []byte) (*Program, error) {
	if !Is(program) {
		return nil, fault.New(fault.Invalid, "this is no program for a foreign runtime")
	}
	p := &Program{}
	d := wire.NewDec(program[len(magic):])
	for d.Next() {
		switch d.Tag {
		case 1:
			p.Name = d.Str()
		case 2:
			p.Dir = d.Str()
		case 3:
			p.Env = append(p.Env, d.Str())
		case 4:
			p.Steps = append(p.Steps, words(d))
		case 5:
			p.Undo = append(p.Undo, words(d))
		case 6:
			p.PidFile = d.Str()
		case 7:
			p.Console = d.Str()
		case 8:
			p.Log = d.Str()
		case 9:
			p.Patience = time.Duration(d.Int())
		case 10:
			p.Remove = append(p.Remove, d.Str())
		}
	}
	if d.Err != nil {
		return nil, fault.Wrap(fault.Invalid, d.Err, "program for a foreign runtime")
	}
	if len(p.Steps) == 0 || p.PidFile == "" || p.Patience <= 0 || p.Patience > time.Hour {
		return nil, fault.New(fault.Invalid, "program for a foreign runtime: no command, no pid file, or no deadline")
	}
	for _, c := range append(append([]Command(nil), p.Steps...), p.Undo...) {
		if len(c) == 0 || c[0] == "" || c[0][0] != '/' {
			return nil, fault.New(fault.Invalid, "program for a foreign runtime: a command without a path")
		}
	}
	return p, nil
}

// words reads one command.
func words(d *wire.Dec) Command {
	c := Command{}
	in := wire.NewDec(d.Bytes())
	for in.Next() {
		w := ""
		for one := wire.NewDec(in.Bytes()); one.Next(); {
			w = one.Str()
		}
		c = append(c, w)
	}
	if in.Err != nil && d.Err == nil {
		d.Err = in.Err
	}
	return c
}
