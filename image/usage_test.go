package image

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"berth/image/layer"
	"berth/kernel/tree"
)

// du asks du(1).
func du(t *testing.T, path string) int64 {
	t.Helper()
	out, err := exec.Command("du", "-s", "--block-size=1", path).Output()
	if err != nil {
		t.Skip("needs du: ", err)
	}
	n, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDiskUsage(t *testing.T) {
	h := open(t)
	h.keep = true
	h.reopen()
	m := makeSeveral(t, "1")
	h.load(m.archive("docker.io/library/app:1"))
	big := makeSample(t, nil, tarOf(t, "etc/", "", "etc/shared", "all"), tarOf(t, "big", strings.Repeat("x", 300000), "hole", strings.Repeat("\x00", 3<<20)))
	h.load(big.dockerArchive(t, "big:1"))
	img, _ := h.Resolve("big:1")
	if _, err := h.Layers().Create(ctx, "c1", img.Layers, layer.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.uses[big.id()] = []Use{{"c1", true}}
	h.Layers().WaitTrash(ctx)
	for range 2 {
		if _, err := h.DiskUsage(ctx); err != nil {
			t.Fatal(err)
		}
		d, err := tree.OpenDir(h.root)
		if err != nil {
			t.Fatal(err)
		}
		d.SyncFS() // blocks are given out late
		d.Close()
		h.reopen() // forgets what was measured before
		u, err := h.DiskUsage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := u.Disk(), du(t, h.root); got != want {
			t.Errorf("%d bytes on disk, du says %d: %+v", got, want, u)
		}
		if u.Layers.Count != 5 || u.Containers.Count != 1 || u.Kept.Count != 4 || u.Documents.Count != 3+3+1+3+1 || len(u.Images) != 2 {
			t.Errorf("%+v", u)
		}
		if u.Layers.Disk > 1<<20 || u.Layers.Size < 3<<20 {
			t.Errorf("a hole takes room: %+v", u.Layers)
		}
		for _, i := range u.Images {
			total, containers := int64(3+6+6+6), 0
			if i.ID == big.id() {
				total, containers = 3+300000+3<<20, 1
			}
			if i.SharedSize != 3 || i.TotalSize != total || i.UniqueSize != total-3 || len(i.Containers) != containers {
				t.Errorf("%s: total %d (want %d), shared %d, unique %d, containers %q", i.RepoTags, i.TotalSize, total, i.SharedSize, i.UniqueSize, i.Containers)
			}
			if (i.Kept > 0) != (i.ID == m.amd.id()) {
				t.Errorf("%s: kept %d", i.RepoTags, i.Kept)
			}
		}
		if u.Reclaimable != 18 {
			t.Errorf("reclaimable %d", u.Reclaimable)
		}
	}
}
