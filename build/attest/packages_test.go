package attest

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/kernel/tree"
)

// urls scans a directory and gives the packages of one type.
func urls(t *testing.T, dir, kind string) (list []string) {
	t.Helper()
	root, err := tree.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	all, err := Scan(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Type == kind {
			list = append(list, p.URL())
		}
	}
	return list
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRPM reads the databases that rpm itself makes, of packages that rpmbuild makes: enough of them for a tree of pages, and one with more in
// its header than a page holds.
func TestRPM(t *testing.T) {
	for _, name := range []string{"rpm", "rpmbuild"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("needs " + name + ": install the package rpm")
		}
	}
	dir := t.TempDir()
	spec := "Name: berthone\nVersion: 1.2\nRelease: 3\nSummary: x\nLicense: MIT\nEpoch: 7\nBuildArch: noarch\nPackager: Ann <a@x>\n%description\n" + strings.Repeat("many words ", 3000) + "\n%files\n"
	const many = 40
	for i := range many {
		spec += fmt.Sprintf("%%package -n berth%02d\nSummary: x\n%%description -n berth%02d\n%s\n%%files -n berth%02d\n", i, i, strings.Repeat("word ", 50*i), i)
	}
	put(t, dir, "x.spec", spec)
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	run("rpmbuild", "-bb", "--quiet", "--define", "_topdir "+dir+"/top", dir+"/x.spec")
	made, _ := filepath.Glob(dir + "/top/RPMS/noarch/*.rpm")
	if len(made) != many+1 {
		t.Fatalf("%d packages", len(made))
	}
	root := t.TempDir()
	put(t, root, "etc/os-release", "ID=fedora\nVERSION_ID=40\n")
	db := []string{"--define", "_db_backend sqlite", "--dbpath", filepath.Join(root, "var/lib/rpm"), "--nodeps", "--noscripts", "--justdb"}
	run("rpm", append(append(slices.Clone(db), "-i"), made...)...)
	run("rpm", append(slices.Clone(db), "-e", "berth07")...)
	check := func() {
		t.Helper()
		got := urls(t, root, "rpm")
		if len(got) != many || !slices.Contains(got, "pkg:rpm/fedora/berthone@1.2-3?arch=noarch&distro=fedora-40&epoch=7") ||
			!slices.Contains(got, "pkg:rpm/fedora/berth39@1.2-3?arch=noarch&distro=fedora-40&epoch=7") {
			t.Errorf("%d: %v", len(got), got)
		}
	}
	check()

	// The same headers in SUSE's format, which Debian's rpm does not write.
	file := filepath.Join(root, "var/lib/rpm", rpmSQLite)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	slots, blobs := make([]byte, ndbPage), []byte{}
	copy(slots, ndbMagic)
	slots[12] = 1
	at := 2 * ndbSlot
	err = tableRows(bytes.NewReader(raw), int64(len(raw)), "Packages", func(c []any) {
		header := c[1].([]byte)
		index := uint32(at)
		copy(slots[at:], ndbSlotMagic)
		binary.LittleEndian.PutUint32(slots[at+4:], index)
		binary.LittleEndian.PutUint32(slots[at+8:], uint32(ndbPage+len(blobs))/ndbBlock)
		at += ndbSlot
		head := make([]byte, ndbBlock)
		copy(head, ndbBlobMagic)
		binary.LittleEndian.PutUint32(head[4:], index)
		binary.LittleEndian.PutUint32(head[12:], uint32(len(header)))
		blobs = append(append(blobs, head...), header...)
		blobs = append(blobs, make([]byte, 2*ndbBlock-len(header)%ndbBlock)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(root, "var/lib/rpm")); err != nil {
		t.Fatal(err)
	}
	ndb := string(slots) + string(blobs)
	put(t, root, "usr/lib/sysimage/rpm/"+rpmNDB, ndb)
	check()

	// Nothing that happens to a file may do more than lose packages.
	for name, raw := range map[string]string{"var/lib/rpm/" + rpmSQLite: string(raw), "usr/lib/sysimage/rpm/" + rpmNDB: ndb} {
		for i := 0; i < len(raw); i += 1 + len(raw)/40 {
			put(t, root, name, raw[:i])
			urls(t, root, "rpm")
			broken := []byte(raw)
			for j := i; j < len(broken); j += 97 {
				broken[j] ^= 0x5a
			}
			put(t, root, name, string(broken))
			urls(t, root, "rpm")
		}
	}
}

func TestRuby(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "var/lib/gems/3.1.0/specifications/rack-3.0.8.gemspec", `# -*- encoding: utf-8 -*-
# stub: rack 3.0.8 ruby lib

Gem::Specification.new do |s|
  s.name = "rack".freeze
  s.version = "3.0.8"
  s.authors = ["Leah Neukirchen".freeze]
  s.licenses = ["MIT".freeze]
end
`)
	put(t, dir, "usr/lib/ruby/gems/3.1.0/specifications/default/json-2.6.1.gemspec", "Gem::Specification.new do |s|\n  s.name = \"json\"\n  s.version = \"2.6.1\"\nend\n")
	put(t, dir, "app/src/mine.gemspec", "Gem::Specification.new do |s|\n  s.name = \"mine\"\n  s.version = Mine::VERSION\nend\n") // somebody's source
	put(t, dir, "usr/share/specifications/odd.gemspec", "  s.name = \"a#{b}\"\n  s.version = \"1\"\n")
	if got := urls(t, dir, "gem"); !slices.Equal(got, []string{"pkg:gem/json@2.6.1", "pkg:gem/rack@3.0.8"}) {
		t.Errorf("%v", got)
	}
}

func TestPHP(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "app/vendor/composer/installed.json", `{"packages":[{"name":"monolog/monolog","version":"2.9.1","license":["MIT"],"authors":[{"name":"Jordi"}]},{"name":"none"}],"dev":true}`)
	put(t, dir, "old/vendor/composer/installed.json", `[{"name":"psr/log","version":"v1.1.4"}]`)
	put(t, dir, "bad/vendor/composer/installed.json", `{"packages":"x"}`)
	if got := urls(t, dir, "composer"); !slices.Equal(got, []string{"pkg:composer/psr/log@1.1.4", "pkg:composer/monolog/monolog@2.9.1"}) && !slices.Equal(got, []string{"pkg:composer/monolog/monolog@2.9.1", "pkg:composer/psr/log@1.1.4"}) {
		t.Errorf("%v", got)
	}
}

// TestRust reads the section that cargo auditable adds, here added by objcopy to a program of the machine's.
func TestRust(t *testing.T) {
	objcopy, err := exec.LookPath("objcopy")
	if err != nil {
		t.Skip("needs objcopy: install the package binutils")
	}
	dir := t.TempDir()
	var zipped bytes.Buffer
	z := zlib.NewWriter(&zipped)
	_, _ = z.Write([]byte(`{"packages":[{"name":"app","version":"0.1.0","source":"local","dependencies":[1],"root":true},{"name":"serde","version":"1.0.190","source":"registry"},` +
		`{"name":"cc","version":"1.0.0","source":"registry","kind":"build"}]}`))
	_ = z.Close()
	put(t, dir, "section", zipped.String())
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	if err := os.MkdirAll(filepath.Join(dir, "root/usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(objcopy, "--add-section", ".dep-v0="+filepath.Join(dir, "section"), bash, filepath.Join(dir, "root/usr/bin/app")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := urls(t, filepath.Join(dir, "root"), "cargo"); !slices.Equal(got, []string{"pkg:cargo/app@0.1.0", "pkg:cargo/serde@1.0.190"}) {
		t.Errorf("%v", got)
	}
}

func FuzzTables(f *testing.F) {
	head := make([]byte, 2048)
	copy(head, sqliteMagic)
	binary.BigEndian.PutUint16(head[16:], 512)
	head[100] = leafTable
	f.Add(head)
	f.Add([]byte(ndbMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows := 0
		_ = tableRows(bytes.NewReader(b), int64(len(b)), "Packages", func(c []any) { rows++ })
		if rows > len(b) {
			t.Errorf("%d rows of %d bytes", rows, len(b))
		}
		ndbBlobs(bytes.NewReader(b), int64(len(b)), func(raw []byte) { parseRPM(raw, distro{}, "/x") })
		parseRPM(b, distro{}, "/x")
		parseGem(b, "/x")
		parseComposer(b, "/x")
		parseRust(bytes.NewReader(b), "/x")
	})
}

// A header whose every entry names the same long text costs no more than one that names it once.
func TestHostileRPMHeader(t *testing.T) {
	const entries, length = 10_000, 1 << 16
	raw := make([]byte, 8+16*entries+length)
	binary.BigEndian.PutUint32(raw, entries)
	binary.BigEndian.PutUint32(raw[4:], length)
	for i := range entries {
		e := raw[8+16*i:]
		binary.BigEndian.PutUint32(e, uint32(tagName+i%1000))
		binary.BigEndian.PutUint32(e[4:], typeString)
	}
	values := raw[8+16*entries:]
	for i := range length - 1 {
		values[i] = 'x'
	}
	var list []Package
	if n := testing.AllocsPerRun(1, func() { list = parseRPM(raw, distro{}, "/x") }); n > 100 {
		t.Errorf("%.0f allocations", n)
	}
	if len(list) != 1 || len(list[0].Name) != length-1 {
		t.Errorf("%d packages", len(list))
	}
}
