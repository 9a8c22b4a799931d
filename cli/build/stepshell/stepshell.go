package stepshell

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// Word is the command of berth that is this shell.
const Word = "step-shell"

// A Shell is one session.
type Shell struct {
	In       io.Reader
	Out, Err io.Writer
	Prompt   bool // show what is waited for

	status int
	ended  bool
}

// Run reads lines until exit or the end of the input, and gives the last exit code.
func (s *Shell) Run() int {
	if s.Prompt {
		fmt.Fprintln(s.Out, "A small shell of berth's; help says what it knows.")
	}
	lines := bufio.NewScanner(s.In)
	for {
		if s.Prompt {
			dir, _ := os.Getwd()
			fmt.Fprintf(s.Out, "%s # ", dir)
		}
		if !lines.Scan() {
			return s.status
		}
		s.line(lines.Text())
		if s.ended {
			return s.status
		}
	}
}

// line runs one line.
func (s *Shell) line(text string) {
	if t := strings.TrimSpace(text); t == "" || strings.HasPrefix(t, "#") {
		return
	}
	words, err := shell.NewLex('\\').ProcessWords(text, shell.EnvsFromSlice(os.Environ()))
	if err == nil && len(words) > 0 {
		err = s.command(words)
	}
	s.status = 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		s.status = exit.ExitCode()
	case err != nil:
		s.status = 1
		fmt.Fprintln(s.Err, err)
	}
}

// builtins are the commands that need no program.
func builtins() map[string]struct {
	help string
	run  func(s *Shell, args []string) error
} {
	type entry = struct {
		help string
		run  func(s *Shell, args []string) error
	}
	return map[string]entry{
		"cat":    {"cat FILE…           print files", (*Shell).cat},
		"cd":     {"cd [DIR]            go to a directory", (*Shell).cd},
		"cp":     {"cp FILE TARGET      copy a file", (*Shell).cp},
		"echo":   {"echo WORD…          print words", (*Shell).echo},
		"env":    {"env                 print the environment", (*Shell).env},
		"export": {"export NAME=VALUE   set a variable", (*Shell).export},
		"find":   {"find [DIR]          list all below a directory", (*Shell).find},
		"help":   {"help                say this", (*Shell).help},
		"ls":     {"ls [PATH…]          list files", (*Shell).ls},
		"mkdir":  {"mkdir DIR…          make directories", (*Shell).mkdir},
		"pwd":    {"pwd                 say where we are", (*Shell).pwd},
		"rm":     {"rm PATH…            remove files and directories", (*Shell).rm},
	}
}

func (s *Shell) command(words []string) error {
	name, args := words[0], words[1:]
	if name == "exit" {
		s.ended = true
		return nil
	}
	if b, ok := builtins()[name]; ok {
		// A program of that name is better than ours, but for what must happen in this process.
		_, err := exec.LookPath(name)
		if err != nil || name == "cd" || name == "export" || name == "help" {
			return b.run(s, args)
		}
	}
	c := exec.Command(name, args...)
	c.Stdin, c.Stdout, c.Stderr = s.In, s.Out, s.Err
	return c.Run()
}

func (s *Shell) help([]string) error {
	all := builtins()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintln(s.Out, all[name].help)
	}
	fmt.Fprintln(s.Out, "exit                leave\nanything else       is a program to run")
	return nil
}

func (s *Shell) cat(args []string) error {
	for _, a := range args {
		f, err := os.Open(a)
		if err != nil {
			return err
		}
		_, err = io.Copy(s.Out, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Shell) cd(args []string) error {
	dir := "/"
	if len(args) > 0 {
		dir = args[0]
	}
	return os.Chdir(dir)
}

func (s *Shell) cp(args []string) error {
	if len(args) != 2 {
		return errors.New("cp needs a file and a target")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	fi, err := os.Stat(args[0])
	if err != nil {
		return err
	}
	target := args[1]
	if t, err := os.Stat(target); err == nil && t.IsDir() {
		target = filepath.Join(target, filepath.Base(args[0]))
	}
	return os.WriteFile(target, text, fi.Mode().Perm())
}

func (s *Shell) echo(args []string) error {
	_, err := fmt.Fprintln(s.Out, strings.Join(args, " "))
	return err
}

func (s *Shell) env([]string) error {
	_, err := fmt.Fprintln(s.Out, strings.Join(os.Environ(), "\n"))
	return err
}

func (s *Shell) export(args []string) error {
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		if err := os.Setenv(k, v); err != nil {
			return err
		}
	}
	return nil
}

func (s *Shell) find(args []string) error {
	if len(args) == 0 {
		args = []string{"."}
	}
	return filepath.WalkDir(args[0], func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			fmt.Fprintln(s.Err, err)
			return nil
		}
		fmt.Fprintln(s.Out, path)
		if path == "/proc" || path == "/sys" {
			return fs.SkipDir
		}
		return nil
	})
}

func (s *Shell) ls(args []string) error {
	if len(args) > 0 && strings.HasPrefix(args[0], "-") { // all options mean: as much as there is
		args = args[1:]
	}
	if len(args) == 0 {
		args = []string{"."}
	}
	for _, a := range args {
		fi, err := os.Lstat(a)
		if err != nil {
			return err
		}
		if !fi.IsDir() {
			s.show(filepath.Dir(a), fi)
			continue
		}
		entries, err := os.ReadDir(a)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if fi, err := e.Info(); err == nil {
				s.show(a, fi)
			}
		}
	}
	return nil
}

func (s *Shell) show(dir string, fi fs.FileInfo) {
	target := ""
	if fi.Mode()&fs.ModeSymlink != 0 {
		if to, err := os.Readlink(filepath.Join(dir, fi.Name())); err == nil {
			target = " -> " + to
		}
	}
	fmt.Fprintf(s.Out, "%s %9d %s %s%s\n", fi.Mode(), fi.Size(), fi.ModTime().Format("Jan _2 15:04"), fi.Name(), target)
}

func (s *Shell) mkdir(args []string) error {
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			continue
		}
		if err := os.MkdirAll(a, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (s *Shell) pwd([]string) error {
	dir, err := os.Getwd()
	if err == nil {
		_, err = fmt.Fprintln(s.Out, dir)
	}
	return err
}

func (s *Shell) rm(args []string) error {
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			continue
		}
		if err := os.RemoveAll(a); err != nil {
			return err
		}
	}
	return nil
}
