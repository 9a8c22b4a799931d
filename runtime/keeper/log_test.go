package keeper

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/runtime/keeper/localfile"
)

// localRecords reads a log in the local format; there must be nothing but whole records.
func localRecords(t *testing.T, path string, b []byte) (all []record) {
	t.Helper()
	for len(b) > 0 {
		entry, n, err := localfile.Cut(b)
		var e localfile.Entry
		if err == nil {
			err = e.Decode(entry)
		}
		if err != nil {
			t.Fatalf("%s: %v after %d records", path, err, len(all))
		}
		x := record{Log: string(e.Line), Stream: e.Source, Time: time.Unix(0, e.Time), Attrs: map[string]string{}}
		if e.Newline() {
			x.Log += "\n"
		}
		for i, k := range e.Keys {
			x.Attrs[k] = e.Values[i]
		}
		x.Attrs["ordinal"], x.Attrs["id"] = fmt.Sprint(e.Partial.Ordinal), e.Partial.ID
		all = append(all, x)
		b = b[n:]
	}
	return all
}

func TestLocalLog(t *testing.T) {
	r := newRig(t)
	log := r.logCfg("a")
	log.Format = "local"
	log.Attrs = []Attr{{Key: "tag", Value: "web"}, {Key: "env", Value: "x"}}
	r.launch(Launch{ID: "a", Log: log, Program: sh(`echo one; echo two >&2; echo; head -c 40000 /dev/zero | tr "\0" x; echo; printf end`)})
	r.exitOf("a", "")
	var out, ordinals, ids []string
	for _, x := range records(t, log.Path) {
		if x.Stream == "stderr" {
			if x.Log != "two\n" {
				t.Errorf("%q", x.Log)
			}
			continue
		}
		if x.Attrs["tag"] != "web" || x.Attrs["env"] != "x" {
			t.Errorf("%v", x.Attrs)
		}
		if len(x.Log) > 100 {
			x.Log = fmt.Sprint(len(x.Log))
		}
		out, ordinals = append(out, x.Log), append(ordinals, x.Attrs["ordinal"])
		ids = append(ids, x.Attrs["id"])
	}
	if got := strings.Join(out, ","); got != "one\n,\n,16384,16384,7233,end" {
		t.Errorf("%q", got)
	}
	if got := strings.Join(ordinals, ""); got != "001231" {
		t.Errorf("%q", got)
	}
	if ids[2] == "" || ids[2] != ids[3] || ids[3] != ids[4] || ids[4] == ids[5] || ids[0] != "" {
		t.Errorf("%q", ids)
	}
}

// TestKeptLog: what was not shipped is not rotated away. The process blocks, through an upgrade and a death
// of the keeper too, goes on when older files are told to be shipped, and when it is killed its end comes at
// once, its last words written.
func TestKeptLog(t *testing.T) {
	r := newRig(t)
	log := r.logCfg("a")
	log.Format, log.MaxSize, log.MaxFiles, log.Keep = "local", 20000, 3, true
	r.launch(Launch{ID: "a", Log: log, Program: program(self(t), "child-count", "0", "0")})
	size := func() (sum int64) {
		for _, name := range []string{"", ".1", ".2", ".3"} {
			if st, err := os.Stat(log.Path + name); err == nil {
				sum += st.Size()
			}
		}
		return sum
	}
	blocked := func() int64 {
		t.Helper()
		var n int64
		eventually(t, "it is blocked", func() bool {
			before := size()
			time.Sleep(400 * time.Millisecond)
			n = size()
			return n == before && n > 3*19000
		})
		if n > 3*20300 {
			t.Errorf("%d bytes in files of 20000", n)
		}
		return n
	}
	first := func(path string) string { return strings.Fields(records(t, path)[0].Log)[1] }
	begins := func(path, with string) bool { // false also in the moment in which a rotation has the number free
		b, err := os.ReadFile(path)
		return err == nil && strings.Fields(localRecords(t, path, b)[0].Log)[1] == with
	}
	blocked()
	if f := first(log.Path + ".2"); f != "0" {
		t.Errorf("the oldest file begins with line %s", f)
	}
	ship := func(path string) {
		t.Helper()
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.c.ShippedLog(r.ctx(), "a", st.Sys().(*syscall.Stat_t).Ino); err != nil {
			t.Fatal(err)
		}
	}
	was := first(log.Path + ".1")
	ship(log.Path + ".1")
	eventually(t, "the oldest is rotated away", func() bool { return begins(log.Path+".2", was) })
	blocked()
	if err := r.c.Upgrade(r.ctx(), r.cfg.Binary); err != nil {
		t.Fatal(err)
	}
	blocked()
	syscall.Kill(r.keeperPID(), syscall.SIGKILL)
	r.keeperPID()
	blocked()
	was = first(log.Path)
	ship(log.Path)
	eventually(t, "two are rotated away", func() bool { return begins(log.Path+".2", was) })
	n := blocked()
	start := time.Now()
	if err := r.c.Signal(r.ctx(), "a", "", 9); err != nil {
		t.Fatal(err)
	}
	r.exitOf("a", "")
	if took := time.Since(start); took > patience(5*time.Second) {
		t.Errorf("its end took %v", took)
	}
	if now := size(); now < n+60000 || now > n+400000 {
		t.Errorf("%d bytes became %d: a full pipe was to be added", n, now)
	}
	next := -1
	for _, name := range []string{".2", ".1", ""} {
		for _, x := range records(t, log.Path+name) {
			var i int
			fmt.Sscanf(x.Log, "line %d", &i)
			if next >= 0 && i != next && strings.HasSuffix(x.Log, "\n") {
				t.Fatalf("line %d follows %d", i, next-1)
			}
			next = i + 1
		}
	}
}

// TestPackedLog: a compressed copy takes the place of the file that it is of, wherever that is by then.
func TestPackedLog(t *testing.T) {
	r := newRig(t)
	log := r.logCfg("a")
	log.MaxFiles, log.Announce = 4, true
	told := make(chan string, 9)
	r.c.OnRotated(func(id string) { told <- id })
	st := r.launch(Launch{ID: "a", Log: log, Stdin: true, Program: program("/bin/cat"), Attach: []AttachRequest{{Stdin: true, Stdout: true}}})
	say := func(s string) {
		t.Helper()
		io.WriteString(st.Attached[0], s)
		if _, err := io.ReadFull(st.Attached[0], make([]byte, len(s))); err != nil {
			t.Fatal(err)
		}
		if err := r.c.RotateLog(r.ctx(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	say("one\n")
	select {
	case id := <-told:
		if id != "a" {
			t.Errorf("%q", id)
		}
	case <-time.After(patience(5 * time.Second)):
		t.Fatal("no word of the rotation")
	}
	one, _ := os.Stat(log.Path + ".1")
	inode := one.Sys().(*syscall.Stat_t).Ino
	say("two\n")
	os.WriteFile(log.Path+".tmp", []byte("packed"), 0o600)
	if err := r.c.PackedLog(r.ctx(), log.Path, inode, log.Path+".tmp"); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(log.Path + ".2.gz"); string(b) != "packed" {
		t.Errorf("%q", b)
	}
	if _, err := os.Stat(log.Path + ".2"); err == nil {
		t.Error("the plain file is still there")
	}
	if err := r.c.PackedLog(r.ctx(), log.Path, inode, log.Path+".tmp"); err == nil {
		t.Error("packed twice")
	}
	say("three\n")
	if b, _ := os.ReadFile(log.Path + ".3.gz"); string(b) != "packed" {
		t.Errorf("after a rotation: %q", b)
	}
	if err := r.c.ClearLog(r.ctx(), "nobody", log.Path); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".1", ".2", ".3.gz"} {
		if _, err := os.Stat(log.Path + name); err == nil {
			t.Errorf("%q is left", name)
		}
	}
}

// TestOneFile: a log of one file begins anew in another, so that who reads the old one can read it to its
// end.
func TestOneFile(t *testing.T) {
	r := newRig(t)
	log := r.logCfg("a")
	log.MaxSize = 20000
	r.launch(Launch{ID: "a", Log: log, Stdin: true, Program: sh("read x; seq 1 1000; read x")})
	f, err := os.Open(log.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	conn, err := r.c.Attach(r.ctx(), AttachRequest{ID: "a", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "go\n")
	eventually(t, "it rotates", func() bool { st, err := f.Stat(); return err == nil && st.Sys().(*syscall.Stat_t).Nlink == 0 })
	if b, _ := io.ReadAll(f); !strings.Contains(string(b), `{"log":"1\n"`) {
		t.Errorf("%.100q", b)
	}
}
