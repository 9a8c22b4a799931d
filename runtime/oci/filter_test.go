package oci

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"berth/kernel/seccomp"
	"berth/runtime/oci/config"
)

const oneRule = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["ptrace"],"action":"SCMP_ACT_ERRNO"}]}`

func filterOf(t *testing.T, root string) *seccomp.Filter {
	t.Helper()
	cfg, err := config.Parse([]byte(`{"ociVersion":"1.2.0","linux":{"seccomp":` + oneRule + `}}`))
	if err != nil {
		t.Fatal(err)
	}
	f, err := (&tool{root: root}).filter(&configuration{Config: cfg})
	if err != nil || f == nil || len(f.Code) == 0 {
		t.Fatal(f, err)
	}
	return f
}

// Whoever could put a file into the cache would decide what containers may call: a filter that allows
// everything in place of the profile's. The cache of somebody else is neither believed nor written to.
func TestNobodyElsesFiltersAreBelieved(t *testing.T) {
	root := t.TempDir()
	honest := filterOf(t, root)
	dir := filepath.Join(root, filterDir)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("the filter was not kept: %v %v", files, err)
	}
	path := filepath.Join(dir, files[0].Name())
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	evil := bytes.Clone(data)
	evil = evil[:len(evil)-len(honest.Code)]
	allow := []byte{0x06, 0, 0, 0, 0, 0, 0xff, 0x7f} // BPF_RET SECCOMP_RET_ALLOW
	evil = append(evil[:len(evil)-4], 8, 0, 0, 0)
	if err := os.WriteFile(path, append(evil, allow...), 0o600); err != nil {
		t.Fatal(err)
	}
	if f := filterOf(t, root); !bytes.Equal(f.Code, allow) {
		t.Fatal("the forged file is not one that would be believed; this test attacks nothing")
	}
	for name, spoil := range map[string]func() error{
		"writable for everybody": func() error { return os.Chmod(dir, 0o777) },
		"writable for its group": func() error { return os.Chmod(dir, 0o770) },
		"sticky":                 func() error { return os.Chmod(dir, 0o777|os.ModeSticky) },
		"somebody else's": func() error {
			if os.Geteuid() != 0 {
				t.Skip("needs root: giving a directory to another user")
			}
			return os.Chown(dir, 12345, 12345)
		},
		"a link": func() error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			use := root
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			if name == "a link" {
				use = t.TempDir()
				if err := os.Symlink(dir, filepath.Join(use, filterDir)); err != nil {
					t.Fatal(err)
				}
			}
			if f := filterOf(t, use); !bytes.Equal(f.Code, honest.Code) {
				t.Error("a filter of somebody else's was believed")
			}
			if now, err := os.ReadDir(dir); err != nil || len(now) != 1 {
				t.Errorf("it was written to: %v %v", now, err)
			}
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() == 0 {
				if err := os.Chown(dir, 0, 0); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
