package attest

import (
	"archive/zip"
	"bytes"
	"compress/zlib"
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
)

// holes is a file that is as large as anybody says, with zeros behind its head.
type holes struct{ head []byte }

func (h holes) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(h.head)) {
		copy(p, h.head[off:])
	}
	return len(p), nil
}

// allocates gives the bytes that f asks memory for.
func allocates(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// elfFile is an ELF file of 64 bits with so many sections, all of them like the second one, which names them.
func elfFile(sections uint16, flags elf.SectionFlag, content []byte, size uint64) []byte {
	const at = 64
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: at, Ehsize: at, Phentsize: 56, Shentsize: 64, Shnum: sections, Shstrndx: 1}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	binary.Write(&b, binary.LittleEndian, h)
	for range sections {
		binary.Write(&b, binary.LittleEndian, elf.Section64{Type: uint32(elf.SHT_STRTAB), Flags: uint64(flags), Off: at + 64*uint64(sections), Size: size, Addralign: 1})
	}
	b.Write(content)
	return b.Bytes()
}

// A program of a megabyte can ask whoever reads it with Go's library for all the memory there is. A tree that is scanned may have it.
func TestProgramsThatWantMemory(t *testing.T) {
	const large = 128 << 20
	var zipped bytes.Buffer
	binary.Write(&zipped, binary.LittleEndian, elf.Chdr64{Type: uint32(elf.COMPRESS_ZLIB), Size: large, Addralign: 1})
	z := zlib.NewWriter(&zipped)
	for range large >> 20 {
		z.Write(make([]byte, 1<<20))
	}
	z.Close()
	long := append(bytes.Repeat([]byte("x"), 60_000), 0)
	for name, f := range map[string]io.ReaderAt{
		"names that are compressed":     bytes.NewReader(elfFile(2, elf.SHF_COMPRESSED, zipped.Bytes(), uint64(zipped.Len()))),
		"names that are a hole":         holes{elfFile(2, 0, nil, large)},
		"one long name, many sections":  bytes.NewReader(elfFile(60_000, 0, long, uint64(len(long)))),
		"more sections than a number":   holes{elfFile(0, 0, nil, 0)},
		"names without an end":          holes{elfFile(2, 0, nil, 1<<63)},
		"sections beyond the very end":  holes{append(elfFile(2, 0, nil, 0)[:40:40], bytes.Repeat([]byte{0xff}, 24)...)},
		"no end of data, no sections":   holes{noSections()},
		"data that is longer than what": bytes.NewReader(noSections()),
	} {
		t.Run(name, func(t *testing.T) {
			n := allocates(func() {
				if list := append(parseGo(f, "f"), parseRust(f, "f")...); len(list) != 0 {
					t.Errorf("%+v", list)
				}
			})
			if n > 64<<20 {
				t.Errorf("it takes %d bytes", n)
			}
		})
	}
}

// noSections is a program with nothing but a segment of data without an end.
func noSections() []byte {
	b := elfFile(0, 0, nil, 0)
	binary.LittleEndian.PutUint64(b[40:], 0) // where sections are
	binary.LittleEndian.PutUint64(b[32:], 64)
	binary.LittleEndian.PutUint16(b[56:], 1)
	var p bytes.Buffer
	binary.Write(&p, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W), Filesz: 1 << 50, Memsz: 1 << 50, Align: 1})
	return append(b, p.Bytes()...)
}

// What linkers make is read as before.
func TestProgramsAreRead(t *testing.T) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Skip("needs /proc")
	}
	defer self.Close()
	r, ok := program(self)
	if !ok {
		t.Fatal("the test itself is no program")
	}
	if info, err := buildinfo.Read(r); err != nil || info.GoVersion == "" {
		t.Error(info, err)
	}
	for name, b := range map[string][]byte{"nothing": nil, "text": []byte(strings.Repeat("#!/bin/sh\n", 20)), "its magic alone": []byte(elf.ELFMAG)} {
		if _, ok := program(bytes.NewReader(b)); ok {
			t.Errorf("%s is a program", name)
		}
	}
}

// The directory of an archive takes several times its size in memory.
func TestArchivesThatWantMemory(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := range 400 {
		z.CreateHeader(&zip.FileHeader{Name: fmt.Sprint(i, strings.Repeat("/x", 30_000))})
	}
	w, _ := z.Create("META-INF/maven/g/a/pom.properties")
	io.WriteString(w, "groupId=g\nartifactId=a\nversion=1\n")
	z.Close()
	var list []Package
	if n := allocates(func() { list = parseJar(bytes.NewReader(b.Bytes()), int64(b.Len()), "f") }); n > 64<<20 || len(list) != 0 {
		t.Errorf("%d bytes of memory, %d packages", n, len(list))
	}
}

// Databases of packages bound what is made of them: the packages, the fields of one, and their texts.
func TestDatabasesThatWantMemory(t *testing.T) {
	count, most := 0, 0
	stanzas([]byte(strings.Repeat("P:x\n\n", packagesMax+10)), func(f map[string]string) { count++; most = max(most, len(f)) })
	var b strings.Builder
	for i := range 10 * fieldsMax {
		fmt.Fprintf(&b, "f%d:x\n", i)
	}
	stanzas([]byte(b.String()), func(f map[string]string) { most = max(most, len(f)) })
	if count != packagesMax || most != fieldsMax {
		t.Errorf("%d packages, %d fields", count, most)
	}
	s := &scan{}
	long := strings.Repeat("é", textMax)
	s.add(Package{Name: long}, Package{Name: "a", License: long, Supplier: long})
	if len(s.list) != 1 || len(s.list[0].License) > textMax+10 || !strings.HasSuffix(s.list[0].Supplier, "é…") {
		t.Errorf("%d packages", len(s.list))
	}
	for range 2 * textsMax / textMax {
		s.add(Package{Name: "a", Supplier: long})
	}
	if s.texts > textsMax+10*textMax {
		t.Errorf("%d bytes of text", s.texts)
	}
}
