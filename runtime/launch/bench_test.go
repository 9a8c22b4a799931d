package launch

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/idmap"
	"berth/kernel/probe"
)

// BenchmarkStart measures a whole container: overlay, mounts, masks, capabilities; from the finished
// program to the reaped process. Its time to execve is reported beside it.
func BenchmarkStart(b *testing.B) {
	root := busyboxRoot(b)
	dir := b.TempDir()
	must(b, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	for _, covered := range []bool{false, true} {
		b.Run(map[bool]string{false: "pivot", true: "covered"}[covered], func(b *testing.B) {
			l, err := NewLauncher(covered)
			must(b, err)
			defer l.Close()
			upper, work := filepath.Join(dir, b.Name(), "u"), filepath.Join(dir, b.Name(), "w")
			must(b, os.MkdirAll(upper, 0o755))
			must(b, os.MkdirAll(work, 0o755))
			s := plainSpec("", "true")
			s.Root = &specs.Root{}
			s.Process.NoNewPrivileges = true
			p, err := Compile(s, Options{Covered: covered, Facts: probe.Host(), Overlay: &Overlay{Lower: []string{root}, Upper: upper, Work: work}})
			must(b, err)
			streams := quiet(b)
			for b.Loop() {
				proc, err := l.Start(p, streams)
				must(b, err)
				wait(b, proc)
			}
		})
	}
}

// BenchmarkStartMapped measures what a user namespace adds: one that clone3 makes, one whose layers are shown through its
// mapping too, and one that owns a network namespace made beforehand, as the engine's containers have it.
func BenchmarkStartMapped(b *testing.B) {
	root := busyboxRoot(b)
	dir := b.TempDir()
	must(b, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	ids := idmap.Map{{Outside: 100000, Size: 65536}}
	for _, kind := range []string{"plain", "userns", "mapped", "joined"} {
		b.Run(kind, func(b *testing.B) {
			l, err := NewLauncher(true)
			must(b, err)
			defer l.Close()
			v := &Overlay{Lower: []string{root}, Upper: filepath.Join(dir, kind, "u"), Work: filepath.Join(dir, kind, "w"), Mapped: kind == "mapped" || kind == "joined"}
			must(b, os.MkdirAll(v.Upper, 0o755))
			must(b, os.MkdirAll(v.Work, 0o755))
			s, o := plainSpec("", "true"), Options{Covered: true, Facts: probe.Host(), Overlay: v}
			s.Root, s.Process.NoNewPrivileges = &specs.Root{}, true
			if kind != "plain" {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
				s.Linux.UIDMappings, s.Linux.GIDMappings = ids.Spec(), ids.Spec()
			}
			if kind == "joined" {
				ns, err := idmap.NetNamespace(idmap.Pair{Users: ids, Groups: ids})
				must(b, err)
				defer unix.Close(ns)
				path := "/proc/self/fd/" + itoa(ns)
				dropNamespace(s, "network")
				dropNamespace(s, "user")
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network", Path: path}, specs.LinuxNamespace{Type: "user", Path: path})
				o.OwnerNS = true
			}
			p, err := Compile(s, o)
			must(b, err)
			streams := quiet(b)
			for b.Loop() {
				proc, err := l.Start(p, streams)
				must(b, err)
				wait(b, proc)
			}
		})
	}
}

// BenchmarkCompile measures the deciding half.
func BenchmarkCompile(b *testing.B) {
	s := plainSpec("/nowhere", "true")
	o := Options{Facts: probe.Host(), IsFile: func(string) bool { return false }}
	b.ReportAllocs()
	for b.Loop() {
		p, err := Compile(s, o)
		must(b, err)
		_ = p.Encode()
	}
}

// BenchmarkDecode measures what the keeper does with a program before the first call: reading it, and
// laying out the child's table.
func BenchmarkDecode(b *testing.B) {
	p, err := Compile(plainSpec("/nowhere", "true"), Options{Facts: probe.Host(), IsFile: func(string) bool { return false }})
	must(b, err)
	encoded := p.Encode()
	slots := make([]int, len(p.Slots))
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		var d Decoder
		for b.Loop() {
			_, err := d.Decode(encoded) // nothing is started that would write into it
			must(b, err)
		}
	})
	b.Run("layout", func(b *testing.B) {
		b.ReportAllocs()
		var mem []byte
		for b.Loop() {
			mem = layout(mem, p.Child, slots, -1, tableAddr)
		}
	})
}
