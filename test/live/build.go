package live

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Commands are the programs of this repository: each has a directory in cmd/.
func Commands() ([]string, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob(filepath.Join(root, "cmd", "*", "main.go"))
	var names []string
	for _, d := range dirs {
		names = append(names, filepath.Base(filepath.Dir(d)))
	}
	return names, err
}

// Build builds this tree's programs of those names, all when none is given, into dir as make build does.
func Build(dir string, commands ...string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	if len(commands) == 0 {
		if commands, err = Commands(); err != nil {
			return err
		}
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", dir + "/"}
	for _, c := range commands {
		args = append(args, "./cmd/"+c)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// Root gives the repository's directory: where go.mod is, upwards from here.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod above: not in the repository")
		}
		dir = up
	}
}

// Lacks names the facility that this machine lacks for an engine with containers, "" when it has all.
func Lacks() string {
	if runtime.GOOS != "linux" {
		return "needs Linux: an engine runs nowhere else"
	}
	if os.Geteuid() != 0 {
		return "needs root: mounts and namespaces of containers are made by root"
	}
	if _, err := busybox(); err != nil {
		return "needs busybox-static: " + err.Error()
	}
	return ""
}
